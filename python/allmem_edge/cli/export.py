"""`allmem-edge export`: a checkpoint becomes a model directory that the runtimes read."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from allmem_edge.cli import console
from allmem_edge.cli.needs_export import export_package


@click.command("export")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The new model directory.")
@click.option(
    "--quantize",
    type=click.Choice(["none", "int8", "mixed", "int4", "int4-pure"]),
    default="none",
    show_default=True,
    help="Weight format; mixed is int8 with an MLP of 4 bits, as Q4_1; int4 keeps the vocabulary in 8 bits, "
    "int4-pure does not.",
)
def command(
    checkpoint: Path, out: Path, quantize: Literal["none", "int8", "mixed", "int4", "int4-pure"]
) -> None:
    """Export the checkpoint directory CHECKPOINT as a model directory (ONNX and tokenizer)."""
    stderr = console.stderr()
    with export_package(), console.progress(stderr) as progress:
        from allmem_export.export import export

        task = progress.add_task("exporting", total=1.0)

        def report(step: str, fraction: float) -> None:
            progress.update(task, description=step, completed=fraction)

        export(checkpoint, out, quantize=quantize, progress=report)
    if stderr.is_terminal:
        stderr.print(f"Wrote {out}.")
