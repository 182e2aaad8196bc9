"""The long-term memory: a network per KV head that is trained while it reads (docs/model.md, "The memory").

Shapes: B sequences, K KV heads, group = query heads per KV head, T tokens, D channels, h hidden units.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass
class FastWeights:
    """The three matrices of a memory, or anything shaped like them (momentum, gradient).

    gate, up: [B, K, h, D]; down: [B, K, D, h].
    """

    gate: Tensor
    up: Tensor
    down: Tensor

    def zeros_like(self) -> FastWeights:
        """Zeros of the same shapes."""
        return FastWeights(*(torch.zeros_like(w) for w in (self.gate, self.up, self.down)))


@dataclass
class MemoryState:
    """A memory between two tokens: weights W, momentum S, the chunk's gradient so far G, sum of β [B, K]."""

    weight: FastWeights
    momentum: FastWeights
    gradient: FastWeights
    beta_sum: Tensor


def l2_normalize(x: Tensor, eps: float) -> Tensor:
    """x / sqrt(Σ x² + eps) over the last axis."""
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + eps)


def row_norms(w: Tensor) -> Tensor:
    """L2 norm of every row: [..., rows, cols] -> [..., rows, 1]."""
    norms: Tensor = torch.linalg.vector_norm(w, dim=-1, keepdim=True)
    return norms


def normalize_rows(w: FastWeights, norm0: FastWeights) -> FastWeights:
    """Ŵ: every row rescaled to the norm it has in W_0. A row of zeros stays zero."""

    def rescale(x: Tensor, norm: Tensor) -> Tensor:
        return x * (norm * torch.rsqrt(x.square().sum(-1, keepdim=True).clamp_min(1e-30)))

    return FastWeights(rescale(w.gate, norm0.gate), rescale(w.up, norm0.up), rescale(w.down, norm0.down))


def read(w: FastWeights, z: Tensor) -> Tensor:
    """M_W(z) = z + W_d (silu(W_g z) ⊙ W_u z) for z [B, K, N, D]."""
    hidden = F.silu(z @ w.gate.mT) * (z @ w.up.mT)
    return z + hidden @ w.down.mT


def gradient(w: FastWeights, k: Tensor, v: Tensor, eta: Tensor) -> FastWeights:
    """Σ_t η_t ∇_W ½‖M_W(k_t) − v_t‖² in closed form; k, v [B, K, N, D], eta [B, K, N]."""
    a = k @ w.gate.mT
    u = k @ w.up.mT
    sigma = torch.sigmoid(a)
    s = a * sigma
    m = s * u
    e = (k + m @ w.down.mT - v) * eta.unsqueeze(-1)
    dm = e @ w.down
    da = dm * u * (sigma + s * (1 - sigma))
    return FastWeights(gate=da.mT @ k, up=(dm * s).mT @ k, down=e.mT @ m)


def initial_state(w0: FastWeights, batch: int) -> MemoryState:
    """The state before the first token, for `batch` sequences; w0's tensors are [K, ., .]."""
    weight = FastWeights(*(w.expand(batch, *w.shape) for w in (w0.gate, w0.up, w0.down)))
    beta_sum = w0.gate.new_zeros(batch, w0.gate.shape[0])
    return MemoryState(weight, weight.zeros_like(), weight.zeros_like(), beta_sum)


def write(
    w_hat: FastWeights, momentum: FastWeights, grad: FastWeights, beta: Tensor
) -> tuple[FastWeights, FastWeights]:
    """The end of a chunk: S' = β̄ S + g, W' = Ŵ − S'. beta is β̄, [B, K]. Returns (W', S')."""
    b = beta[..., None, None]
    s = FastWeights(b * momentum.gate + grad.gate, b * momentum.up + grad.up, b * momentum.down + grad.down)
    return FastWeights(w_hat.gate - s.gate, w_hat.up - s.up, w_hat.down - s.down), s


def chunked_memory(
    w0: FastWeights, q: Tensor, k: Tensor, v: Tensor, eta: Tensor, beta: Tensor, chunk: int
) -> Tensor:
    """Reads and trains the memory over a whole sequence, one chunk after the other (training's form).

    q [B, K, group, T, D], k and v [B, K, T, D], eta and beta [B, K, T] -> what was read, [B, K, group, T, D].
    Every chunk's tokens read the weights as they were at its start.
    """
    batch = q.shape[0]
    state = initial_state(w0, batch)
    norm0 = FastWeights(row_norms(w0.gate), row_norms(w0.up), row_norms(w0.down))
    weight, momentum = state.weight, state.momentum
    outputs = []
    # split, not slices: the gradient of each slice would be a tensor of the whole length
    chunks = [x.split(chunk, dim) for x, dim in ((q, 3), (k, 2), (v, 2), (eta, 2), (beta, 2))]
    last = len(chunks[0]) - 1
    for i, (q_c, k_c, v_c, eta_c, beta_c) in enumerate(zip(*chunks, strict=True)):
        outputs.append(read(weight, q_c.flatten(2, 3)).view(q_c.shape))
        if i == last:
            break  # nothing reads what the last chunk would write
        w_hat = normalize_rows(weight, norm0)
        grad = gradient(w_hat, k_c, v_c, eta_c)
        weight, momentum = write(w_hat, momentum, grad, beta_c.mean(-1))
    return torch.cat(outputs, dim=3)


def recurrent_memory_step(
    state: MemoryState,
    w0: FastWeights,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    eta: Tensor,
    beta: Tensor,
    chunk: int,
    position: int,
) -> tuple[Tensor, MemoryState]:
    """One token of the same memory as a recurrence: the definition that the chunked form is tested against.

    q [B, K, group, D], k and v [B, K, D], eta and beta [B, K]; `position` counts the tokens before this one.
    Returns what was read, [B, K, group, D], and the next state.
    """
    out = read(state.weight, q)
    norm0 = FastWeights(row_norms(w0.gate), row_norms(w0.up), row_norms(w0.down))
    w_hat = normalize_rows(state.weight, norm0)
    g = gradient(w_hat, k.unsqueeze(2), v.unsqueeze(2), eta.unsqueeze(-1))
    total = FastWeights(state.gradient.gate + g.gate, state.gradient.up + g.up, state.gradient.down + g.down)
    beta_sum = state.beta_sum + beta
    if (position + 1) % chunk:
        return out, MemoryState(state.weight, state.momentum, total, beta_sum)
    weight, momentum = write(w_hat, state.momentum, total, beta_sum / chunk)
    return out, MemoryState(weight, momentum, weight.zeros_like(), torch.zeros_like(beta_sum))
