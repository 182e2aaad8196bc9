"""Teaches the memories what is worth learning, before they are trained: `python -m allmem_export.fit_rates`.

Gradients alone hardly do it: after hundreds of steps that paid for recall, η was the same for a fact and for
the pages of text around it. But which tokens will be asked for is known when the sequences are made
(sequences.py), so the projection of η is fitted to it directly: by ridge regression from a layer's input.

With --power the projection stays what training has made of it, but for its contrast: η ← η₁ (η / η₁)^power,
η₁ what it is where something is told. Filler is written more weakly, and what is told as before.
"""

from __future__ import annotations

import math
from pathlib import Path

import click
import torch
from rich.progress import track
from safetensors.torch import save_file
from torch import Tensor, nn

from .graft_task import GraftTask, full_attention, load_adapter, mixed_precision
from .long_term_memory import LongTermMemory
from .train import load_config

RIDGE = 1e-3  # of the mean square of an input


class _Moments:
    """Σ w x xᵀ and Σ w x y of one layer, with a 1 behind each x [N, d]; and Σ w log η by head where told."""

    def __init__(self, memory: LongTermMemory) -> None:
        size, device = memory.eta_proj.in_features + 1, memory.eta_proj.weight.device
        self.memory = memory
        self.xx = torch.zeros(size, size, dtype=torch.float64, device=device)
        self.xy = torch.zeros(size, dtype=torch.float64, device=device)
        self.log_eta = torch.zeros(memory.eta_proj.out_features, dtype=torch.float64, device=device)
        self.told = 0.0

    def add(self, x: Tensor, weight: Tensor, target: Tensor, told: Tensor) -> None:
        eta, _ = self.memory.rates(x[told])
        self.log_eta += (eta.log() * weight[told, None]).sum(0).double()
        self.told += weight[told].sum().item()
        x = torch.cat((x, torch.ones_like(x[:, :1])), -1)
        self.xx += ((x * weight[:, None]).mT @ x).double()
        self.xy += ((weight * target) @ x).double()

    @property
    def _told_log_eta(self) -> Tensor:
        """log η where something is told, by head."""
        return self.log_eta / max(self.told, 1e-9)

    def sharpen(self, power: float) -> None:
        """Raises η to a power, around what each head's is where something is told."""
        projection, center = self.memory.eta_proj, self._told_log_eta
        projection.weight.mul_(power)
        projection.bias.copy_(power * (projection.bias - center) + center)

    def fit(self) -> None:
        """Sets the projection: the fit, above what each head's η is where something is told."""
        diagonal = self.xx.diagonal()[:-1]
        ridge = torch.zeros_like(self.xx)
        ridge.diagonal()[:-1] = RIDGE * diagonal.mean()
        solution = torch.linalg.solve(self.xx + ridge, self.xy)
        projection = self.memory.eta_proj
        projection.weight.copy_(solution[:-1].expand_as(projection.weight))
        projection.bias.copy_(solution[-1] + self._told_log_eta)


@torch.no_grad()
def fit_rates(task: GraftTask, batches: int, told: float, filler: float, power: float | None = None) -> None:
    """Fits the projections of η: to `told` and `filler` times what η is now where facts are told.

    power: raises η to it instead. Both classes weigh the same. The base is read with full attention and
    without its memories. η is small, so that its softplus, or a linear memory's sigmoid, is an exponential.
    """
    inputs: list[Tensor] = []
    device = next(task.model.parameters()).device
    mixers = [layer.self_attn for layer in task.model.model.layers if layer.self_attn.memory is not None]
    moments = [_Moments(mixer.memory) for mixer in mixers]
    hooks = [
        mixer.register_forward_pre_hook(lambda _module, args: inputs.append(args[0])) for mixer in mixers
    ]
    for step in track(range(batches), "reading"):
        batch = task.batch(step, step)
        needed = batch["needed"].flatten().to(device)
        used = needed != 0
        is_told = needed[used] > 0
        if is_told.all() or not is_told.any():
            continue
        inputs.clear()
        with full_attention(task.model), mixed_precision(device.type):
            task.model.model(batch["input_ids"].to(device))
        weight = torch.where(is_told, 1.0 / is_told.sum(), 1.0 / (~is_told).sum())
        target = torch.where(is_told, math.log(told), math.log(filler))
        for moment, x in zip(moments, inputs, strict=True):
            moment.add(x.float().flatten(0, 1)[used], weight, target, is_told)
    for hook in hooks:
        hook.remove()
    for moment in moments:
        moment.fit() if power is None else moment.sharpen(power)


@click.command()
@click.argument("config", type=click.Path(exists=True, path_type=Path))
@click.argument("adapter", type=click.Path(exists=True, path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The adapter with the fitted η.")
@click.option("--batches", default=60, show_default=True)
@click.option("--told", default=1.5, show_default=True, help="η where something is told, in units of now.")
@click.option("--filler", default=0.1, show_default=True, help="η where nothing is, in units of the same.")
@click.option("--power", type=float, help="Sharpens the η that there is, instead of fitting it.")
def main(
    config: Path, adapter: Path, out: Path, batches: int, told: float, filler: float, power: float | None
) -> None:
    """Fits the η of ADAPTER on the sequences of CONFIG, a stage "memory" of a graft."""
    settings = load_config(config) | {"adapter": str(adapter)}
    task = GraftTask(settings)
    nn.Module.to(task.model, "cuda" if torch.cuda.is_available() else "cpu")
    fit_rates(task, batches, told, filler, power)
    fitted = {name: x for name, x in task.model.state_dict().items() if ".eta_proj." in name}
    save_file({**load_adapter(adapter), **fitted}, out)


if __name__ == "__main__":
    main()
