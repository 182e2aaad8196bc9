"""Draws docs/performance.svg from a comparison's JSON: speeds and bytes against the length of the context.

    python bench/plot.py docs/performance.json docs/performance.svg

Solid lines join what was measured. Dashed ones go on by the rival's growth: its time for a token is linear in
the context, and so are its keys and values.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from table import Speeds

WIDTH, HEIGHT, GAP = 320, 230, 86  # of a chart, and between two
LEFT, TOP = 70, 60
FIRST = 1024  # where an empty context is drawn: the axis is logarithmic
OURS, RIVAL = "#2563c9", "#c2571a"


class Line(NamedTuple):
    """Points (tokens of context, value) of one side."""

    label: str
    colour: str
    points: list[tuple[float, float]]
    dashed: bool = False


class Chart(NamedTuple):
    """Lines over a common axis; `form` writes a value, `start` the place where the axis begins."""

    title: str
    lines: list[Line]
    form: Callable[[float], str]
    start: str


def charts(report: dict[str, Any], state: int) -> list[Chart]:
    """The three charts of a report, with `state` bytes of ours."""
    speeds, arguments = Speeds(report), report["arguments"]
    depths, far = arguments["depths"], arguments["far"]
    end = max([*depths, *far])
    result = []
    for what, title in (("write", "decode, tokens/s"), ("read", "prefill of 512, tokens/s")):
        ours = [(depth, speeds.ours(what, depth)) for depth in [*depths, *far]]
        rival = [(depth, speeds.rival(what, depth)[0]) for depth in depths]
        lines = [Line("allmem-edge", OURS, ours), Line("llama.cpp", RIVAL, rival)]
        if len(rival) > 1 and end > rival[-1][0]:
            lines.append(Line("", RIVAL, extended(rival, end), dashed=True))
        result.append(Chart(title, lines, lambda value: f"{value:,g}", "empty"))
    theirs = report["rival_state"]
    per_token = theirs["bytes"] / theirs["tokens"]
    steps = [FIRST * 2**i for i in range(int(math.log2(end / FIRST)) + 1)]
    result.append(
        Chart(
            "state, bytes",
            [
                Line("allmem-edge", OURS, [(FIRST, state), (end, state)]),
                Line(
                    "llama.cpp, f16 keys and values", RIVAL, [(n, per_token * n) for n in steps], dashed=True
                ),
            ],
            lambda value: f"{value / 1e9:g} GB" if value >= 1e9 else f"{value / 1e6:g} MB",
            f"{FIRST // 1024}k",
        )
    )
    return result


def extended(points: list[tuple[float, float]], end: float) -> list[tuple[float, float]]:
    """From the last point on to `end`: seconds for a token by a line of least squares through all points."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(1 / y for _, y in points) / len(points)
    slope = sum((x - mean_x) * (1 / y - mean_y) for x, y in points) / sum(
        (x - mean_x) ** 2 for x, _ in points
    )
    last, speed = points[-1]
    steps = [last * (end / last) ** (i / 16) for i in range(17)]
    return [(x, 1 / (1 / speed + slope * (x - last))) for x in steps]


def ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten between low and high; powers alone when that would be many."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if high / low < 300 else (1,)
    return [f * 10.0**e for e in exponents for f in factors if low <= f * 10.0**e <= high]


def draw(chart: Chart, left: float) -> list[str]:
    """SVG elements of a chart whose axes begin at `left`."""
    values = [y for line in chart.lines for _, y in line.points]
    low, high = min(values) / 1.5, max(values) * 1.5
    end = max(x for line in chart.lines for x, _ in line.points)

    def across(x: float) -> float:
        return left + WIDTH * math.log(max(x, FIRST) / FIRST) / math.log(end / FIRST)

    def down(y: float) -> float:
        return TOP + HEIGHT * (1 - math.log(y / low) / math.log(high / low))

    parts = [text(left, TOP - 18, chart.title, "t")]
    for y in ticks(low, high):
        parts.append(f'<path d="M{left} {down(y):.1f}h{WIDTH}" class="g"/>')
        parts.append(text(left - 8, down(y) + 4, chart.form(y), "y"))
    x = FIRST * 4
    parts.append(text(left, TOP + HEIGHT + 20, chart.start, "x"))
    while x <= end:
        parts.append(text(across(x), TOP + HEIGHT + 20, f"{x // 1024}k", "x"))
        x *= 2
    for line in chart.lines:
        points = " ".join(f"{across(x):.1f},{down(y):.1f}" for x, y in line.points)
        dash = ' stroke-dasharray="5 4"' if line.dashed else ""
        parts.append(f'<polyline points="{points}" stroke="{line.colour}" class="l"{dash}/>')
        if not line.dashed:
            parts += [
                f'<circle cx="{across(x):.1f}" cy="{down(y):.1f}" r="3" fill="{line.colour}"/>'
                for x, y in line.points
            ]
    named = [line for line in chart.lines if line.label]
    for i, line in enumerate(named):
        y = TOP + HEIGHT + 48 + 18 * i
        parts.append(f'<path d="M{left} {y - 4}h18" stroke="{line.colour}" class="l"/>')
        parts.append(text(left + 24, y, line.label, "k"))
    return parts


def text(x: float, y: float, content: str, kind: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{content}</text>'


def picture(report: dict[str, Any], state: int | None = None) -> str:
    """The whole file; `state`: bytes of ours, if not the report's."""
    drawn = charts(report, state or report["starts"]["ours"]["state_bytes"])
    width = LEFT + len(drawn) * (WIDTH + GAP) - GAP + 30
    height = TOP + HEIGHT + 84
    style = (
        ".t{font-size:15px;font-weight:600;fill:#1d1f23}.x,.y,.k{font-size:12px;fill:#444}"
        ".x{text-anchor:middle}.y{text-anchor:end}.g{stroke:#e3e6ea}.l{fill:none;stroke-width:2}"
    )
    label = "Speed and bytes of state against the length of the context"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'font-family="system-ui, sans-serif" role="img" aria-label="{label}">',
            f"<style>{style}</style>",
            f'<rect width="{width}" height="{height}" fill="#fff"/>',
            *(part for i, chart in enumerate(drawn) for part in draw(chart, LEFT + i * (WIDTH + GAP))),
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(picture(json.loads(Path(sys.argv[1]).read_text())), encoding="utf-8")
