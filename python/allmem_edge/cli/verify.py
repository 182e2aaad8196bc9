"""`allmem-edge verify`: a model's files against their checksums, then the runtimes against each other."""

from __future__ import annotations

from pathlib import Path

import click
from rich.table import Table

from allmem_edge.checksums import CHECKSUMS, check_files
from allmem_edge.cli import console
from allmem_edge.cli.needs_export import export_package
from allmem_edge.cli.options import json_option


@click.command("verify")
@click.argument("model_dir", type=click.Path(path_type=Path))
@click.option(
    "--checkpoint", type=click.Path(path_type=Path), help="The PyTorch checkpoint it was exported from."
)
@click.option("--tokens", type=click.IntRange(min=1), default=600, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="Random seed.")
@click.option("--files", "only_files", is_flag=True, help="Check the files only.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    model_dir: Path,
    checkpoint: Path | None,
    tokens: int,
    seed: int,
    only_files: bool,
    as_json: bool,
) -> None:
    """Check MODEL_DIR against its SHA256SUMS, then compare the logits of all runtimes.

    The runtimes are PyTorch, onnxruntime and this one. Exit code 1: a file is damaged, or logits differ by
    more than their tolerance. --files needs no PyTorch.
    """
    files = _checked_files(model_dir, must=only_files)
    if only_files:
        if as_json:
            console.write_json({"model": str(model_dir), "files": files, "ok": True})
        else:
            console.stdout().print(f"{len(files)} files are as {CHECKSUMS} says.")
        return
    with export_package(), console.stderr().status("comparing ..."):
        from allmem_export.verify import verify

        report = verify(model_dir, checkpoint=checkpoint, tokens=tokens, seed=seed)
    if as_json:
        rows = [
            {"name": r.name, "max_abs_diff": r.max_abs_diff, "tolerance": r.tolerance, "ok": r.ok}
            for r in report.rows
        ]
        console.write_json(
            {
                "model": str(model_dir),
                "files": files,
                "tokens": tokens,
                "seed": seed,
                "rows": rows,
                "ok": report.ok,
            }
        )
    else:
        table = Table("compared", "max |difference|", "tolerance", "", box=None)
        for row in report.rows:
            table.add_row(
                row.name, f"{row.max_abs_diff:.2e}", f"{row.tolerance:.0e}", "ok" if row.ok else "TOO LARGE"
            )
        console.stdout().print(table)
    ctx.exit(0 if report.ok else 1)


def _checked_files(model_dir: Path, *, must: bool) -> list[str]:
    """The files that are as their checksums say; none, with a remark, when a model came without checksums."""
    folder = model_dir if model_dir.is_dir() else model_dir.parent
    if not must and not (folder / CHECKSUMS).exists():
        stderr = console.stderr()
        if stderr.is_terminal:
            stderr.print(f"There is no {CHECKSUMS}, so the files are not checked.")
        return []
    return check_files(folder)
