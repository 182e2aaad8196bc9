"""Draws a session's memory as an SVG: how far each layer has moved, what moves it, where the bytes are."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

from allmem_edge.cli import console
from allmem_edge.session import LayerMemory

_WIDTH, _LEFT, _RIGHT = 760, 70, 20
_INK, _FAINT, _GRID = "#1f2933", "#66727f", "#dde3e9"
_DRIFT, _UPDATE, _NEXT = "#2f6db3", "#d9822b", "#8fa7bf"
_PARTS = ("#2f6db3", "#d9822b", "#4f9d69", "#a05fa8", "#9aa5b1")


def svg(title: str, layers: Sequence[LayerMemory], parts: dict[str, int]) -> str:
    """The picture. parts: bytes by part, as console.state_parts gives them."""
    labels = [str(layer.layer) for layer in layers]
    drift = [[layer.drift] for layer in layers]
    updates = [[layer.last_update, layer.next_update] for layer in layers]
    body = [
        _text(_LEFT, 30, title, 16, _INK, weight="bold"),
        _text(_LEFT, 62, "Drift: how far the fast weights are from the model's own, ‖W − W₀‖ / ‖W₀‖", 12),
        _bars(76, 150, labels, drift, [_DRIFT]),
        _text(_LEFT, 292, "Updates, in the same unit:", 12),
        _legend(_LEFT + 160, 292, [("last, ‖S‖ / ‖W₀‖", _UPDATE), ("next, so far, ‖G‖ / ‖W₀‖", _NEXT)]),
        _bars(306, 150, labels, updates, [_UPDATE, _NEXT]),
        _text(_LEFT, 522, f"State: {console.size(parts['total'])}, constant", 12),
        _stack(536, 22, parts),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} 600" '
        'font-family="Helvetica, Arial, sans-serif">'
        f'<rect width="{_WIDTH}" height="600" fill="white"/>{"".join(body)}</svg>\n'
    )


def _text(
    x: float,
    y: float,
    text: str,
    size: int,
    fill: str = _FAINT,
    *,
    weight: str = "normal",
    anchor: str = "start",
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{fill}" font-weight="{weight}" '
        f'text-anchor="{anchor}">{escape(text)}</text>'
    )


def _rect(x: float, y: float, width: float, height: float, fill: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{fill}"/>'


def _legend(x: float, y: float, entries: Sequence[tuple[str, str]]) -> str:
    drawn = []
    for text, colour in entries:
        drawn += [_rect(x, y - 9, 10, 10, colour), _text(x + 15, y, text, 12)]
        x += 34 + 6.6 * len(text)
    return "".join(drawn)


def _ceiling(value: float) -> float:
    """The next 1, 2 or 5 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 1.0
    while power > value:
        power /= 10
    while power * 10 <= value:
        power *= 10
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= value * 0.999999)


def _bars(
    top: float,
    height: float,
    labels: Sequence[str],
    groups: Sequence[Sequence[float]],
    colours: Sequence[str],
) -> str:
    """A group of bars for each label, over a scale."""
    most = _ceiling(max((value for group in groups for value in group), default=0.0))
    bottom, width = top + height, _WIDTH - _LEFT - _RIGHT
    drawn = []
    for step in range(5):
        y = bottom - height * step / 4
        drawn.append(_rect(_LEFT, y, width, 1, _GRID if step else _FAINT))
        drawn.append(_text(_LEFT - 8, y + 4, f"{most * step / 4:.3g}", 11, anchor="end"))
    slot = width / max(len(groups), 1)
    bar = min(slot * 0.7 / len(colours), 46)
    every = -(-len(labels) // 24)  # names of layers that would run into each other are left out
    for index, (label, group) in enumerate(zip(labels, groups, strict=True)):
        middle = _LEFT + slot * (index + 0.5)
        for at, (value, colour) in enumerate(zip(group, colours, strict=True)):
            tall = height * min(value / most, 1.0)
            drawn.append(_rect(middle + (at - len(group) / 2) * bar, bottom - tall, bar, tall, colour))
        if index % every == 0:
            drawn.append(_text(middle, bottom + 16, label, 11, anchor="middle"))
    drawn.append(_text(_LEFT + width / 2, bottom + 34, "layer", 11, anchor="middle"))
    return "".join(drawn)


def _stack(top: float, height: float, parts: dict[str, int]) -> str:
    """One bar, divided as the bytes are, and what its colours mean."""
    shown = [(name, count) for name, count in parts.items() if name != "total" and count > 0]
    x, drawn, legend = float(_LEFT), [], []
    for (name, count), colour in zip(shown, _PARTS, strict=False):
        width = (_WIDTH - _LEFT - _RIGHT) * count / parts["total"]
        drawn.append(_rect(x, top, width, height, colour))
        legend.append((f"{name.replace('_', ' ')} {console.size(count)}", colour))
        x += width
    return "".join(drawn) + _legend(_LEFT, top + height + 22, legend)
