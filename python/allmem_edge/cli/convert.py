"""`allmem-edge convert`: a Qwen3 checkpoint becomes an AllMem one."""

from __future__ import annotations

from pathlib import Path

import click

from allmem_edge.cli import console
from allmem_edge.cli.needs_export import export_package


@click.command("convert")
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The new checkpoint's directory.")
@click.option("--window", type=click.IntRange(min=1), default=4096, show_default=True)
@click.option("--sinks", type=click.IntRange(min=0), default=128, show_default=True)
@click.option("--chunk", type=click.IntRange(min=1), default=512, show_default=True)
@click.option(
    "--ratio", type=click.IntRange(min=1), default=2, show_default=True, help="Memory hidden size / head_dim."
)
def command(source: Path, out: Path, window: int, sinks: int, chunk: int, ratio: int) -> None:
    """Turn the Qwen3 checkpoint directory SOURCE into an AllMem checkpoint.

    Untrained, it computes sliding-window Qwen3; `train` then teaches its memory.
    """
    stderr = console.stderr()
    with export_package(), console.progress(stderr) as progress:
        from allmem_export.convert import convert

        task = progress.add_task("converting", total=None)

        def report(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        convert(source, out, window=window, sinks=sinks, chunk=chunk, ratio=ratio, progress=report)
    if stderr.is_terminal:
        stderr.print(f"Wrote {out}.")
