"""`allmem-edge convert`: a Qwen3 checkpoint becomes an AllMem one, or one of its shape is made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from allmem_edge.cli import console
from allmem_edge.cli.needs_export import export_package


@click.command("convert")
@click.argument("source", type=click.Path(path_type=Path), required=False)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The new checkpoint's directory.")
@click.option("--window", type=click.IntRange(min=1), default=4096, show_default=True)
@click.option("--sinks", type=click.IntRange(min=0), default=128, show_default=True)
@click.option("--chunk", type=click.IntRange(min=1), default=512, show_default=True)
@click.option(
    "--ratio", type=click.IntRange(min=1), default=2, show_default=True, help="Memory hidden size / head_dim."
)
@click.option("--random", "made_up", is_flag=True, help="No SOURCE: random weights, to measure with.")
@click.option(
    "--like",
    type=click.Choice(["qwen3-0.6b", "qwen3-1.7b", "qwen3-4b"]),
    help="With --random: whose shape.",
)
@click.option("--layers", type=click.IntRange(min=1), help="With --random: not as many as the real model.")
def command(
    source: Path | None,
    out: Path,
    window: int,
    sinks: int,
    chunk: int,
    ratio: int,
    made_up: bool,
    like: str | None,
    layers: int | None,
) -> None:
    """Turn the Qwen3 checkpoint SOURCE, a directory or a hub id, into an AllMem one.

    Untrained, it computes sliding-window Qwen3; `train` then teaches its memory.
    """
    if made_up != (source is None) or made_up != (like is not None):
        raise click.UsageError("Give either SOURCE or --random --like NAME.")
    if layers is not None and not made_up:
        raise click.UsageError("--layers goes with --random.")
    stderr = console.stderr()
    with export_package(), console.progress(stderr) as progress:
        from allmem_export.convert import convert
        from allmem_export.random_weights import write_random

        task = progress.add_task("converting", total=None)

        def report(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        memories: dict[str, Any] = {"window": window, "sinks": sinks, "chunk": chunk, "ratio": ratio}
        if source is not None:
            convert(source, out, **memories, progress=report)
        else:
            assert like is not None
            write_random(like, out, layers=layers, **memories, progress=report)
    if stderr.is_terminal:
        stderr.print(f"Wrote {out}.")
