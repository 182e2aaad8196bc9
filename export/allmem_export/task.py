"""What every training task is: what `train.py` asks of it, and what is wrong with a config."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

from allmem_edge.errors import AllMemError

Metrics = dict[str, float]


class ConfigError(AllMemError):
    """The training config is missing something, or says something that cannot be."""


class Task(Protocol):
    """What a training run trains."""

    @property
    def model(self) -> nn.Module:
        """What is trained; a task may know more about it."""

    def batch(self, step: int, seed: int) -> dict[str, Tensor]:
        """The batch of a step, a function of its arguments alone."""

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Metrics]:
        """The scalar to minimise, and figures to log. `model` is self.model, or accelerate's wrap of it."""

    def evaluate(self, model: nn.Module) -> Metrics:
        """Figures on held-out data, for the log; {} if there are none."""

    def save(self, model: nn.Module, out: Path) -> None:
        """Writes the finished checkpoint."""
