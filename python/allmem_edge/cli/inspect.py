"""`allmem-edge inspect`: what a model is, without running it; and what a saved memory holds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from allmem_edge import _core
from allmem_edge.cli import console
from allmem_edge.cli.options import json_option, model_argument
from allmem_edge.errors import InvalidArgumentError, StorageError
from allmem_edge.model import Model

_MAGIC = b"ALLMEMSS"


@click.command("inspect")
@model_argument
@click.option(
    "--model",
    "of_model",
    metavar="MODEL",
    help="The model that the saved memory belongs to. [default: the bundled one]",
)
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.svg",
    help="Plot drift and updates of each layer's memory.",
)
@json_option
def command(model: str | None, of_model: str | None, plot: Path | None, as_json: bool) -> None:
    """Show a model's shapes, window, chunk and bytes, or what a saved memory holds.

    MODEL is a directory, an adapter's name or a hub id (default: the bundled model), or a memory file of
    `chat --memory`.
    """
    if model is not None and _is_memory(Path(model)):
        _inspect_memory(Path(model), of_model, plot, as_json)
        return
    if plot is not None or of_model is not None:
        raise InvalidArgumentError("--plot and --model are for a saved memory; name its file.")
    _inspect_model(Model.load(model), as_json)


def _is_memory(path: Path) -> bool:
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except (OSError, ValueError):  # no such name can be a file
        return False


def _inspect_memory(path: Path, of_model: str | None, plot: Path | None, as_json: bool) -> None:
    facts = _core.inspect_snapshot_file(os.fsencode(path))
    model = Model.load(of_model, exact=facts.exact, **_choices(facts.chosen))
    session = model.session(threads=1)
    session.load(path)
    memory = session.inspect()
    parts = console.state_parts(facts.states, facts.state_bytes)
    report = {
        "file": str(path),
        "format": facts.format,
        "model": model.name,
        "tokens_seen": memory.tokens_seen,
        "frozen": facts.frozen,
        "exact": facts.exact,
        "chosen": facts.chosen,
        "unfinished": facts.unfinished,
        "state_bytes": parts,
        "layers": [
            {
                "layer": layer.layer,
                "drift": layer.drift,
                "weight": layer.weight,
                "momentum": layer.momentum,
                "gradient": layer.gradient,
            }
            for layer in memory.layers
        ],
    }
    if plot is not None:
        from allmem_edge.cli import memory_plot

        title = f"{path.name} · {model.name} · {memory.tokens_seen:,} tokens seen"
        try:
            plot.write_text(memory_plot.svg(title, memory.layers, parts), encoding="utf-8")
        except OSError as error:
            raise StorageError(f"The picture {plot} cannot be written: {error.strerror}.") from error
    if as_json:
        console.write_json(report)
        return
    facts_table = Table(show_header=False, box=None)
    facts_table.add_row(
        "file", f"{console.printable(str(path))}, format {facts.format}, {console.size(path.stat().st_size)}"
    )
    facts_table.add_row("model", console.printable(model.name) + (" (exact)" if facts.exact else ""))
    facts_table.add_row("tokens seen", f"{memory.tokens_seen:,}")
    if facts.chosen:
        facts_table.add_row("chosen", facts.chosen)
    if facts.frozen:
        facts_table.add_row("frozen", "read, not written")
    if facts.unfinished:
        facts_table.add_row("unfinished", "its last answer was stopped: /continue goes on")
    facts_table.add_row("state", console.size(facts.state_bytes))
    for part, count in parts.items():
        if count and part != "total":
            facts_table.add_row(f"  {part.replace('_', ' ')}", console.size(count))
    layer_table = Table("layer", "drift", "last update", "next, so far", box=None)
    for layer in memory.layers:
        layer_table.add_row(
            str(layer.layer),
            f"{layer.drift:.4f}",
            f"{layer.last_update:.4f}",
            f"{layer.next_update:.4f}",
        )
    out = console.stdout()
    out.print(facts_table)
    out.print(layer_table)
    out.print("drift, and both updates: Frobenius norms over that of the model's own fast weights")


def _choices(chosen: str) -> dict[str, Any]:
    """Of "window 32, sinks 4, chunk 16, memory on": what Model.load() takes."""
    parts = dict(part.split(" ", 1) for part in chosen.split(", ") if " " in part)
    choices: dict[str, Any] = {
        name: int(parts[name]) for name in ("window", "sinks", "chunk") if parts.get(name, "").isdecimal()
    }
    memory = parts.get("memory", "on")
    if memory != "on":
        choices.pop("chunk", None)  # there is none to choose
    return choices | {"memory": memory}


def _inspect_model(loaded: Model, as_json: bool) -> None:
    facts = loaded.engine
    parts = console.state_parts(facts.states, facts.state_bytes)
    report = {
        "model": loaded.name,
        "path": str(loaded.path),
        "vocab_size": facts.vocab_size,
        "layers": facts.layers,
        "window": facts.window,
        "sinks": facts.sinks,
        "chunk": facts.chunk,
        "memory": console.memory_kind(facts.states),
        "quantization": facts.quantization,
        "weight_bytes": facts.weight_bytes,
        "state_bytes": parts,
        "states": [{"name": s.name, "shape": list(s.shape), "bytes": s.bytes} for s in facts.states],
    }
    if as_json:
        console.write_json(report)
        return
    table = Table(show_header=False, box=None)
    for key in (
        "model",
        "path",
        "vocab_size",
        "layers",
        "window",
        "sinks",
        "chunk",
        "memory",
        "quantization",
    ):
        table.add_row(key.replace("_", " "), console.printable(str(report[key])))
    table.add_row("weights", console.size(facts.weight_bytes))
    table.add_row("state of a session", f"{console.size(facts.state_bytes)}, constant")
    for part, count in parts.items():
        if count and part != "total":
            table.add_row(f"  {part.replace('_', ' ')}", console.size(count))
    for state in facts.states:
        if state.name.startswith("layers.0."):
            table.add_row(f"  {state.name}", " x ".join(map(str, state.shape)))
    console.stdout().print(table)
