"""What a comparison's JSON says, as a table: medians, ratios, and the goals they are held to.

python bench/table.py report.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from allmem_edge.cost import Cost, Machine, Shape


class Row(NamedTuple):
    """A line of the table. Empty cells are facts that one side does not have."""

    figure: str
    ours: str
    rival: str
    ratio: str
    at_least: str = ""
    aim: str = ""


HEAD = Row("", "allmem-edge", "llama.cpp", "ratio", "at least", "aim")
GOALS = {  # (what, deep): at least, aim; against the rival
    "best": {
        ("write", False): ("1.15 ×", "1.3 ×"),
        ("write", True): ("3 ×", "4 ×"),
        ("read", False): ("1.5 ×", "2.5 ×"),
        ("read", True): ("3.5 ×", "6 ×"),
    },
    "avx2": {(what, deep): ("1.1 ×", "") for what in ("write", "read") for deep in (False, True)},
}
NAMES = {"write": "decode", "read": "prefill"}


class Speeds:
    """Medians, tokens/s: ours, and those of the rival's fastest setting."""

    def __init__(self, report: dict[str, Any]) -> None:
        self._rows = report["speeds"]

    def ours(self, what: str, depth: int) -> float:
        (row,) = (r for r in self._rows if r["side"] == "ours" and r["depth"] == depth)
        return float(row[what]["median"])

    def rival(self, what: str, depth: int) -> tuple[float, str]:
        """The speed and the name of the setting."""
        rows = [r for r in self._rows if r["side"] != "ours" and r["depth"] == depth]
        best = max(rows, key=lambda r: float(r[what]["median"]))
        return float(best[what]["median"]), best["side"]


def table(report: dict[str, Any]) -> list[Row]:
    """All rows of a report, and their head."""
    return [HEAD, *_speed_rows(report), *_bound_rows(report), *_size_rows(report), *_start_rows(report)]


def cost_of(report: dict[str, Any]) -> Cost:
    """What our side's work is by its shapes."""
    shape = Shape.from_config(report["config"])
    assert shape is not None
    return Cost(shape, report["sides"]["ours"]["facts"]["weight_bytes"], exact=False)


def _speed_rows(report: dict[str, Any]) -> list[Row]:
    speeds, arguments = Speeds(report), report["arguments"]
    depths, far, goals = arguments["depths"], arguments["far"], GOALS[arguments["isa"]]
    deepest = max(depths)
    rows = []
    for what in ("write", "read"):
        for depth in [*depths, *far]:
            ours, against = speeds.ours(what, depth), min(depth, deepest)
            theirs, setting = speeds.rival(what, against)
            note = setting if against == depth else f"{setting}, at {against:,}"
            held = depth == 0 or depth >= deepest
            least, aim = goals[what, depth > 0] if held else ("", "")
            rows.append(
                Row(
                    f"{NAMES[what]} at {depth:,}",
                    f"{ours:.1f}/s",
                    f"{theirs:.1f}/s ({note})",
                    f"{ours / theirs:.2f} ×",
                    least,
                    aim,
                )
            )
    for depth in far:
        ours, near = speeds.ours("write", depth), speeds.ours("write", deepest)
        figure = f"decode at {depth:,} to itself at {deepest:,}"
        rows.append(Row(figure, f"{ours:.1f}/s", "", f"{ours / near:.3f} ×", "0.95 ×", "1.0 ×"))
    return rows


def _bound_rows(report: dict[str, Any]) -> list[Row]:
    speeds, arguments = Speeds(report), report["arguments"]
    cost, machine = cost_of(report), Machine(**report["machine_speed"])
    tokens, rows = arguments["read_tokens"], []
    for what in ("write", "read"):
        for depth in [*arguments["depths"], *arguments["far"]]:
            work = cost.decode(depth) if what == "write" else cost.prefill(tokens, depth)
            seconds, by = machine.bound(work)
            bound = (1 if what == "write" else tokens) / seconds
            share = f"{speeds.ours(what, depth) / bound:.0%}"
            aim = "85 %" if (what, depth) == ("write", 0) else ""
            figure = f"{NAMES[what]} at {depth:,} to its bound of {bound:.0f}/s ({by})"
            rows.append(Row(figure, f"{speeds.ours(what, depth):.1f}/s", "", share, "", aim))
    return rows


def _size_rows(report: dict[str, Any]) -> list[Row]:
    state, rival = report["starts"]["ours"]["state_bytes"], report["rival_state"]
    sizes = report["libraries"]
    name = "library" if "library" in sizes else "module"
    return [
        Row(
            f"state at {rival['tokens']:,} (f16 K/V there)",
            size(state),
            size(rival["bytes"]),
            f"{state / rival['bytes']:.1%}",
            "≤ 6 %",
            "≤ 4 %",
        ),
        Row(
            f"{name}, stripped",
            size(sizes[name]),
            size(sizes["rival"]),
            f"{sizes[name] / sizes['rival']:.2f} ×",
            "≤ 2 MB",
            "≤ 1 MB",
        ),
    ]


def _start_rows(report: dict[str, Any]) -> list[Row]:
    starts = report["starts"]
    mine = starts["ours"]

    def best(figure: str) -> tuple[float, str]:
        return min((start[figure]["median"], name) for name, start in starts.items() if name != "ours")

    useful = mine["file_bytes"] + mine["state_bytes"]
    peak, (their_peak, light) = mine["peak_bytes"]["median"], best("peak_bytes")
    rows = [
        Row(
            f"peak RSS, to file + state = {size(useful)}",
            f"{size(peak)} ({size(mine['memory_before'])} before loading)",
            f"{size(their_peak)} ({light}, room for {report['start_tokens']:,} tokens)",
            f"{peak / useful:.2f} ×",
            "≤ 1.2 ×",
            "≤ 1.05 ×",
        )
    ]
    for figure, label, goals in (
        ("load_s", "load, file cached", ("≤ 0.5 s", "≤ 0.1 s")),
        ("first_logits_s", "load and logits of one token", ("", "")),
    ):
        ours, (theirs, fastest) = mine[figure]["median"], best(figure)
        rows.append(
            Row(label, f"{ours:.3f} s", f"{theirs:.3f} s ({fastest})", f"{ours / theirs:.3f} ×", *goals)
        )
    return rows


def size(count: float) -> str:
    """1234567 -> "1.2 MB"."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """The rows, of which the first is the head, aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))} |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown(table(json.loads(Path(sys.argv[1]).read_text()))))
