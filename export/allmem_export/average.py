"""The mean of what the checkpoints of a graft's runs have learned, as a run of its own.

    python -m allmem_export.average runs/smollm2-joint-6 --out runs/smollm2-trained --window 1024

Runs that began from the same adapter may be averaged, too: what is noise differs, what was learned does not
("model soups", arXiv 2203.05482). Weights swing around where they end while the learning rate is high; their
mean is nearer to it (stochastic weight averaging, arXiv 1803.05407). `keep` in the run's [optimizer] says how
many checkpoints there are.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import click
import torch
from safetensors.torch import save_file
from torch import Tensor

from allmem_edge.assembly.adapter import WEIGHTS

from .convert import appearing, check_out
from .graft_task import learned, load_adapter
from .sources import ConvertError
from .task import ConfigError
from .train import checkpoints


def average(files: Sequence[Path]) -> dict[str, Tensor]:
    """The mean of the learned tensors of `files`, float32. Raises ConfigError."""
    adapters = [learned(load_adapter(file)) for file in files]
    shapes = [{name: x.shape for name, x in adapter.items()} for adapter in adapters]
    for file, shape in zip(files, shapes, strict=True):
        if not shape or shape != shapes[0]:
            raise ConfigError(f"{file} has no memory or low-rank update, or another one than {files[0]}.")
    return {name: torch.stack([adapter[name] for adapter in adapters]).mean(0) for name in shapes[0]}


def average_runs(runs: Sequence[Path], out: Path, window: int | None = None) -> list[Path]:
    """Writes the directory `out`: the first of `runs` with the mean of all checkpoints and ends.

    Returns what was averaged. window: the model's, instead of the one that the run was configured with.
    Raises ConfigError and ConvertError.
    """
    check_out(out)
    files: list[Path] = []
    for run in runs:
        if not (run / WEIGHTS).is_file():
            raise ConfigError(f"{run} is no finished run of a graft: it has no {WEIGHTS}.")
        files += [*(path / "model.safetensors" for path in checkpoints(run)), run / WEIGHTS]
    with appearing(out) as folder:
        save_file(average(files), folder / WEIGHTS)
        for path in runs[0].iterdir():
            if path.is_file() and path.name not in (WEIGHTS, "metrics.jsonl"):
                shutil.copyfile(path, folder / path.name)
        if window is not None:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            text = json.dumps(config | {"window": window}, indent=2) + "\n"
            (folder / "config.json").write_text(text, encoding="utf-8")
    return files


@click.command()
@click.argument(
    "runs", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path)
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The directory to create.")
@click.option("--window", type=click.IntRange(min=1), help="The model's window. [default: as configured]")
def main(runs: tuple[Path, ...], out: Path, window: int | None) -> None:
    """Averages the checkpoints and the ends of RUNS."""
    try:
        files = average_runs(runs, out, window)
    except (ConfigError, ConvertError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"The mean of {len(files)}: {', '.join(str(file) for file in files)}")


if __name__ == "__main__":
    main()
