"""The mean of what several checkpoints of a graft have learned.

    python -m allmem_export.average kept/*.safetensors --out DIR/adapter.safetensors

Weights swing around where they end while the learning rate is high; their mean is nearer to it (stochastic
weight averaging, arXiv 1803.05407).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import torch
from safetensors.torch import save_file
from torch import Tensor

from .graft_task import learned, load_adapter
from .task import ConfigError


def average(files: Sequence[Path]) -> dict[str, Tensor]:
    """The mean of the learned tensors of `files`, float32. Raises ConfigError."""
    adapters = [learned(load_adapter(file)) for file in files]
    shapes = [{name: x.shape for name, x in adapter.items()} for adapter in adapters]
    for file, shape in zip(files, shapes, strict=True):
        if not shape or shape != shapes[0]:
            raise ConfigError(f"{file} has no memory or low-rank update, or another one than {files[0]}.")
    return {name: torch.stack([adapter[name] for adapter in adapters]).mean(0) for name in shapes[0]}


@click.command()
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The new adapter.safetensors.")
def main(files: tuple[Path, ...], out: Path) -> None:
    """Averages FILES, model.safetensors or adapter.safetensors of one run."""
    try:
        save_file(average(files), out)
    except ConfigError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
