"""Lines over a logarithmic axis, as an SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 760, 420, 70, 20, 50, 90
_LETTER = 6.6  # the width of a letter of the legend, about
_INK, _FAINT, _GRID = "#1f2933", "#66727f", "#dde3e9"
_COLOURS = ("#2f6db3", "#d9822b", "#4f9d69", "#a05fa8", "#c2434a", "#7a6a4f", "#3aa0a8", "#9aa5b1")

Series = Mapping[str, Sequence[tuple[float, float]]]


def lines(title: str, x_name: str, y_name: str, series: Series, *, from_zero: bool = False) -> str:
    """The picture: a line for each of `series`, of (x > 0, y) in the order of x. from_zero: y begins at 0."""
    points = [point for line in series.values() for point in line if math.isfinite(point[1])]
    xs = [x for x, _ in points] or [1.0]
    ys = [y for _, y in points] or [0.0]
    left, right = math.log2(min(xs)), math.log2(max(xs))
    low, high = min(ys), max(ys)
    if from_zero:
        low, high = min(low, 0.0), max(high, 0.0)
    step = _step((high - low) / 4 or abs(high) / 4 or 1.0)
    low, high = math.floor(low / step) * step, math.ceil(high / step) * step
    high = high if high > low else low + step
    across, down = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def place(x: float, y: float) -> tuple[float, float]:
        share = (math.log2(x) - left) / (right - left) if right > left else 0.5
        return _LEFT + across * share, _TOP + down * (high - y) / (high - low)

    body = [_text(_LEFT, 26, title, 16, _INK, "start")]
    for i in range(round((high - low) / step) + 1):
        y = place(2.0**left, low + i * step)[1]
        body.append(f'<rect x="{_LEFT}" y="{y:.1f}" width="{across}" height="1" fill="{_GRID}"/>')
        body.append(_text(_LEFT - 8, y + 4, f"{low + i * step:.4g}", 11, _FAINT, "end"))
    for x in sorted(set(xs)):
        body.append(_text(place(x, low)[0], _TOP + down + 18, _short(x), 11, _FAINT, "middle"))
    body.append(_text(_LEFT + across / 2, _TOP + down + 38, x_name, 12, _FAINT, "middle"))
    body.append(_text(_LEFT, _TOP - 8, y_name, 12, _FAINT, "start"))
    legend, below = float(_LEFT), _HEIGHT - 34
    for i, (name, line) in enumerate(series.items()):
        colour = _COLOURS[i % len(_COLOURS)]
        drawn = [place(x, y) for x, y in line if math.isfinite(y)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in drawn)
        body.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        body += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in drawn]
        if legend > _LEFT and legend + 15 + _LETTER * len(name) > _WIDTH - _RIGHT:
            legend, below = float(_LEFT), below + 18
        body.append(f'<rect x="{legend:.1f}" y="{below}" width="10" height="10" fill="{colour}"/>')
        body.append(_text(legend + 15, below + 9, name, 12, _INK, "start"))
        legend += 34 + _LETTER * len(name)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'font-family="Helvetica, Arial, sans-serif"><rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>'
        f"{''.join(body)}</svg>\n"
    )


def page(pictures: Sequence[str]) -> str:
    """Several pictures, one below the other, as one."""
    height = _HEIGHT * len(pictures)
    placed = (
        p.replace("<svg ", f'<svg y="{i * _HEIGHT}" height="{_HEIGHT}" ', 1) for i, p in enumerate(pictures)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}">'
        + "".join(placed)
        + "</svg>\n"
    )


def _step(least: float) -> float:
    """The next 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least * 0.999999)


def _short(value: float) -> str:
    return f"{value / 1024:g}k" if value >= 1024 and value % 1024 == 0 else f"{value:g}"


def _text(x: float, y: float, text: str, size: int, fill: str, anchor: str) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{fill}" text-anchor="{anchor}">'
        f"{escape(text)}</text>"
    )
