"""`allmem-edge adapter`: make a memory adapter of a trained checkpoint, or show what one is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console

from allmem_edge.assembly.adapter import WEIGHTS, Adapter, find_adapter
from allmem_edge.cli import console
from allmem_edge.cli.needs_export import export_package
from allmem_edge.cli.options import json_option


@click.group("adapter")
def command() -> None:
    """Export or show a memory adapter: what training adds to a base model."""


@command.command("export")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The new adapter's directory.")
@click.option(
    "--base",
    type=click.Path(path_type=Path),
    required=True,
    metavar="PATH",
    help="The base model as published: the GGUF file or checkpoint directory that was converted.",
)
@click.option(
    "--card",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE.json",
    help="Name, licence, and where to get the base model (docs/adapters.md).",
)
def export_command(checkpoint: Path, out: Path, base: Path, card: Path) -> None:
    """Write the memory that CHECKPOINT has learned, and its low-rank update of the base, as an adapter."""
    stderr = console.stderr()
    with export_package(), console.progress(stderr) as progress:
        from allmem_export.adapter import export_adapter

        task = progress.add_task("exporting", total=1.0)

        def report(step: str, fraction: float) -> None:
            progress.update(task, description=step, completed=fraction)

        export_adapter(checkpoint, out, base=base, card=card, progress=report)
    if stderr.is_terminal:
        stderr.print(f"Wrote {out}.")


@command.command("inspect")
@click.argument("adapter")
@json_option
def inspect_command(adapter: str, as_json: bool) -> None:
    """Show what an adapter is: its base, licences, shapes and figures. ADAPTER is a name or a directory."""
    found = find_adapter(adapter)
    if as_json:
        console.write_json(found.manifest)
        return
    _print(found, Console(highlight=False, soft_wrap=True, markup=False))


def _print(adapter: Adapter, out: Console) -> None:
    base, config = adapter.base, adapter.config
    rows: dict[str, Any] = {
        "adapter": f"{adapter.name}: {adapter.title}",
        "path": adapter.path,
        "size": console.size(sum(f.stat().st_size for f in adapter.path.rglob("*") if f.is_file())),
        "weights": console.size((adapter.path / WEIGHTS).stat().st_size),
        "licence": f"{adapter.license}. {adapter.attribution}",
        "base model": f"{base.name} by {base.author}, {base.license}, {base.url}",
    }
    for source in base.sources:
        place = source.package or (source.hub and f"{source.hub} at {source.revision}") or "no place known"
        for name, digest in source.files.items():
            rows[f"  {name}"] = f"{place}, SHA-256 {digest}"
    memories = config.get("memory_layers")
    layers = config.get("num_hidden_layers")
    rows |= {
        "layers": f"{layers}, {layers if memories is None else len(memories)} of them with a memory",
        "window": f"{config.get('window')} tokens, {config.get('sinks')} sinks",
        "chunk": f"{config.get('chunk')} tokens",
        "quantised": ", ".join(adapter.modes),
    }
    rows |= {f"trained with {key}": value for key, value in adapter.trained.items()}
    rows |= {key: value for key, value in adapter.evaluation.items()}
    width = max(map(len, rows))
    for key, value in rows.items():
        out.print(console.printable(f"{key:{width}}  {value}"))
    for line in adapter.about:
        out.print(console.printable(line))
