"""Where the commands write: the result to stdout, everything else to stderr and only if a person is there."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from allmem_edge.engine import StateInfo

# A model's text is untrusted: what could steer a terminal is not shown there.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def stdout() -> Console:
    """For tables and sentences that are the result. Names in them are text, whatever brackets they have."""
    return Console(highlight=False, soft_wrap=True, markup=False, emoji=False)


def stderr() -> Console:
    """For people. It knows NO_COLOR, and `is_terminal` says whether anybody is looking."""
    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def stdin_is_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def read_stdin() -> str:
    """All of stdin as text; bytes that are no UTF-8 become U+FFFD."""
    return "" if sys.stdin is None else sys.stdin.buffer.read().decode("utf-8", errors="replace")


def write_text(text: str) -> None:
    """A piece of the model's text to stdout, now."""
    if sys.stdout.isatty():
        text = printable(text)
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, errors="replace").decode(encoding))
    sys.stdout.flush()


def printable(text: str) -> str:
    """Without what could steer a terminal."""
    return _CONTROL.sub("", text)


def write_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, ensure_ascii=True, indent=2) + "\n")


def progress(console: Console) -> Progress:
    """A progress bar on stderr that vanishes when done, and is not there without a terminal."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def size(count: int) -> str:
    """1234567 -> "1.2 MB"."""
    if count < 1000:
        return f"{count} bytes"
    value, units = count / 1000, iter(("kB", "MB", "GB"))
    unit = next(units)
    for larger in units:
        if value < 999.95:
            break
        value, unit = value / 1000, larger
    return f"{value:.1f} {unit}"


_PARTS = {
    ".attention.": "window",
    ".memory.weight.": "fast_weights",
    ".memory.momentum.": "momentum",
    ".memory.gradient.": "gradient",
}


def memory_kind(states: Iterable[StateInfo]) -> str:
    """The kind of memory: "linear", "mlp" (AllMem's own), or "none", as where it was left out."""
    names = [state.name for state in states if ".memory.weight." in state.name]
    if not names:
        return "none"
    return "linear" if ".memory.weight.matrix." in names[0] else "mlp"


def state_parts(states: Iterable[StateInfo], total: int) -> dict[str, int]:
    """Bytes of a session's state by part (docs/format.md); "other" is the rest of `total`, with padding."""
    parts = dict.fromkeys(_PARTS.values(), 0)
    for state in states:
        for mark, part in _PARTS.items():
            if mark in state.name:
                parts[part] += state.bytes
    return {**parts, "other": total - sum(parts.values()), "total": total}
