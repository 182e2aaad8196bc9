"""`allmem-edge verify`: PyTorch, onnxruntime and the native runtime on the same tokens."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from allmem_edge.cli import console
from allmem_edge.cli.needs_export import export_package
from allmem_edge.cli.options import json_option


@click.command("verify")
@click.argument("model_dir", type=click.Path(path_type=Path))
@click.option(
    "--checkpoint", type=click.Path(path_type=Path), help="The PyTorch checkpoint it was exported from."
)
@click.option("--tokens", type=click.IntRange(min=1), default=600, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@json_option
@click.pass_context
def command(
    ctx: click.Context, model_dir: Path, checkpoint: Path | None, tokens: int, seed: int, as_json: bool
) -> None:
    """Compare the runtimes' logits for MODEL_DIR, the stream cut into calls at random places.

    Exit code 1 if a difference exceeds its tolerance.
    """
    with export_package(), console.stderr().status("comparing ..."):
        from allmem_export.verify import verify

        report = verify(model_dir, checkpoint=checkpoint, tokens=tokens, seed=seed)
    if as_json:
        rows = [
            {"name": r.name, "max_abs_diff": r.max_abs_diff, "tolerance": r.tolerance, "ok": r.ok}
            for r in report.rows
        ]
        console.write_json(
            {"model": str(model_dir), "tokens": tokens, "seed": seed, "rows": rows, "ok": report.ok}
        )
    else:
        table = Table("compared", "max |difference|", "tolerance", "", box=None)
        for row in report.rows:
            table.add_row(
                row.name, f"{row.max_abs_diff:.2e}", f"{row.tolerance:.0e}", "ok" if row.ok else "TOO LARGE"
            )
        Console(highlight=False, soft_wrap=True).print(table)
    ctx.exit(0 if report.ok else 1)
