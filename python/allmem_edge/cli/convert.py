"""`allmem-edge convert`: a base model becomes an AllMem checkpoint, or one of its shape is made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from allmem_edge.cli import console
from allmem_edge.cli.needs_export import export_package


@click.command("convert")
@click.argument("source", type=click.Path(path_type=Path), required=False)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The new checkpoint's directory.")
@click.option(
    "--window",
    type=click.IntRange(min=1),
    default=4096,
    show_default=True,
    help="Attention window in tokens.",
)
@click.option(
    "--sinks",
    type=click.IntRange(min=0),
    default=128,
    show_default=True,
    help="First tokens that attention always sees.",
)
@click.option(
    "--chunk",
    type=click.IntRange(min=1),
    default=512,
    show_default=True,
    help="Tokens between two writes of the memory.",
)
@click.option(
    "--ratio",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="Hidden units of a memory per head dimension.",
)
@click.option(
    "--gate",
    type=click.Choice(["static", "dynamic"]),
    default="static",
    show_default=True,
    help="Gate of the memory: a parameter, or computed from the input.",
)
@click.option(
    "--memory",
    type=click.Choice(["mlp", "linear"]),
    default="mlp",
    show_default=True,
    help="AllMem's memory, or a matrix per KV head by the gated delta rule, which has no chunk and no ratio.",
)
@click.option("--delta/--no-delta", default=True, help="Of a linear memory: the delta part. [default: delta]")
@click.option("--memory-layers", metavar="3-10,14", help="Layers with a memory. [default: all]")
@click.option("--maps", is_flag=True, help="Add learned linear maps to the memory's queries and keys.")
@click.option("--norm/--no-norm", default=True, help="RMS norm on the memory's output. [default: norm]")
@click.option(
    "--init-std",
    type=float,
    help="Standard deviation of the initial W_g and W_u. [default: 1/sqrt(head_dim)]",
)
@click.option(
    "--eta",
    type=float,
    default=0.1,
    show_default=True,
    help="Initial learning rate of the memory; of a linear one its write strength, below 1.",
)
@click.option("--random", "made_up", is_flag=True, help="Random weights instead of SOURCE, for benchmarks.")
@click.option(
    "--like",
    type=click.Choice(["qwen3-0.6b", "qwen3-1.7b", "qwen3-4b", "smollm2-135m"]),
    help="With --random: the shape.",
)
@click.option(
    "--layers",
    type=click.IntRange(min=1),
    help="With --random: the number of layers. [default: the real model's]",
)
def command(
    source: Path | None,
    out: Path,
    window: int,
    sinks: int,
    chunk: int,
    ratio: int,
    gate: str,
    memory: str,
    delta: bool,
    memory_layers: str | None,
    maps: bool,
    norm: bool,
    init_std: float | None,
    eta: float,
    made_up: bool,
    like: str | None,
    layers: int | None,
) -> None:
    """Turn the base model SOURCE into an AllMem checkpoint.

    SOURCE is a checkpoint directory, a hub id or a GGUF file of a Qwen3, Qwen2, Llama or Mistral model. The
    result computes what SOURCE does within a sliding window, until `train` has taught its memory.
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
        memories |= {"memory": memory, "memory_delta": delta}
        if source is not None:
            fields: dict[str, Any] = {"gate": gate, "memory_maps": maps, "memory_norm": norm, "eta_init": eta}
            fields |= {"memory_layers": _numbers(memory_layers), "memory_init_std": init_std}
            convert(source, out, **memories, **fields, progress=report)
        else:
            assert like is not None
            write_random(like, out, layers=layers, **memories, progress=report)
    if stderr.is_terminal:
        stderr.print(f"Wrote {out}.")


def _numbers(text: str | None) -> list[int] | None:
    """The layers that "3-5,9" means: 3, 4, 5 and 9."""
    if text is None:
        return None
    try:
        ranges = [[int(end) for end in part.split("-")] for part in text.split(",")]
        return [number for ends in ranges for number in range(ends[0], ends[-1] + 1)]
    except ValueError:
        raise click.UsageError(
            f"--memory-layers is {text!r}; write numbers and ranges, as 3-10,14."
        ) from None
