"""Muon in float32: momentum SGD whose update of a matrix is orthogonalised (Jordan et al., 2024).

torch.optim.Muon iterates in bfloat16, which CPUs without bfloat16 arithmetic only emulate: on such a machine
it took a third of a training step. This one works in the parameters' own type, on all matrices of a shape
at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic Newton-Schulz iteration
_STEPS = 5


def orthogonalize(updates: Tensor) -> Tensor:
    """About the semi-orthogonal matrices closest to updates [N, rows, cols]: U Vᵀ of their SVD."""
    a, b, c = _COEFFICIENTS
    tall = updates.shape[-2] > updates.shape[-1]
    x: Tensor = updates.mT if tall else updates
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    for _ in range(_STEPS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised, scaled so that its root mean square is that of an AdamW update.

    Args:
        params: matrices only.
        lr: learning rate, of the size of AdamW's.
        momentum: of the gradient.
        weight_decay: decoupled, as AdamW's.
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every matrix that has a gradient."""
        loss = closure() if closure is not None else None
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    by_shape.setdefault(p.shape, []).append(p)
            for shape, params in by_shape.items():
                updates = orthogonalize(torch.stack([self._nesterov(p, group["momentum"]) for p in params]))
                scale = 0.2 * max(shape) ** 0.5
                for p, update in zip(params, updates, strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.add_(update, alpha=-group["lr"] * scale)
        return loss

    def _nesterov(self, p: Tensor, momentum: float) -> Tensor:
        state = self.state[p]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(p)
        assert p.grad is not None
        state["momentum"].mul_(momentum).add_(p.grad, alpha=1 - momentum)
        return p.grad.lerp(state["momentum"], momentum)
