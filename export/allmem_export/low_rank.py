"""Low-rank updates of a base model's projections: W' = W + B A (LoRA, arXiv 2106.09685), no other scale."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")


class LowRankLinear(nn.Linear):
    """A linear layer and an update of its weight: lora_A [r, in] and lora_B [out, r], which starts at 0."""

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__(base.in_features, base.out_features, bias=base.bias is not None, device="meta")
        self.weight, self.bias = base.weight, base.bias
        self.lora_A = nn.Parameter(torch.randn(rank, base.in_features) * base.in_features**-0.5)
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank))
        self.active = True

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y + F.linear(F.linear(x, self.lora_A), self.lora_B) if self.active else y


def add_low_rank(model: nn.Module, rank: int) -> None:
    """Gives every attention projection of a model a low-rank update."""
    for module in list(model.modules()):
        for name in PROJECTIONS:
            base = getattr(module, name, None)
            if isinstance(base, nn.Linear) and not isinstance(base, LowRankLinear):
                setattr(module, name, LowRankLinear(base, rank))


def updates(model: nn.Module) -> list[LowRankLinear]:
    return [module for module in model.modules() if isinstance(module, LowRankLinear)]


@contextmanager
def without_updates(model: nn.Module) -> Iterator[None]:
    """Computes with the base model's own weights."""
    for module in updates(model):
        module.active = False
    try:
        yield
    finally:
        for module in updates(model):
            module.active = True


@torch.no_grad()
def merge(weights: dict[str, Tensor], low_rank: dict[str, Tensor]) -> None:
    """Adds every B A of `low_rank` (NAME.lora_A, NAME.lora_B) to `weights`' NAME.weight, in place."""
    for name, a in low_rank.items():
        if name.endswith(".lora_A"):
            module = name.removesuffix(".lora_A")
            weight = weights[f"{module}.weight"]
            weight += (low_rank[f"{module}.lora_B"].float() @ a.float()).to(weight.dtype)
