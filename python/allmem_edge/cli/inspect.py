"""`allmem-edge inspect`: what a model is, without running it."""

from __future__ import annotations

import click
from rich.console import Console
from rich.table import Table

from allmem_edge.cli import console
from allmem_edge.cli.options import json_option, model_argument
from allmem_edge.model import Model


@click.command("inspect")
@model_argument
@json_option
def command(model: str | None, as_json: bool) -> None:
    """Show a model's shapes, window, chunk, quantization and bytes.

    MODEL is a directory or a hub id; without it, the bundled model.
    """
    loaded = Model.load(model)
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
        "quantization": facts.quantization,
        "weight_bytes": facts.weight_bytes,
        "state_bytes": parts,
        "states": [{"name": s.name, "shape": list(s.shape), "bytes": s.bytes} for s in facts.states],
    }
    if as_json:
        console.write_json(report)
        return
    table = Table(show_header=False, box=None)
    for key in ("model", "path", "vocab_size", "layers", "window", "sinks", "chunk", "quantization"):
        table.add_row(key.replace("_", " "), str(report[key]))
    table.add_row("weights", console.size(facts.weight_bytes))
    table.add_row("memory of a session", f"{console.size(facts.state_bytes)}, constant")
    for part, count in parts.items():
        if count and part != "total":
            table.add_row(f"  {part.replace('_', ' ')}", console.size(count))
    for state in facts.states:
        if state.name.startswith("layers.0."):
            table.add_row(f"  {state.name}", " x ".join(map(str, state.shape)))
    Console(highlight=False, soft_wrap=True).print(table)
