"""The linear memory: a matrix per KV head, written with every token (docs/model.md, "The linear memory").

    S_t = β_t S_{t−1} (I − η_t k_t k_tᵀ) + η_t v_t k_tᵀ      o_t = S_t q_t

the gated delta rule (Gated DeltaNet, arXiv 2412.06464); with `delta` off S_t = β_t S_{t−1} + η_t v_t k_tᵀ, as
in Mamba-2's recurrence (arXiv 2405.21060), of which the rest, its Δ, convolution and norm, is not here. S
starts as zeros. Shapes as in memory.py; S is [B, K, D, D], a row for each channel of v.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

BLOCK = 64  # tokens that are computed together; the result does not depend on it
_LEAST = 1e-30  # a decay below it is as good as 0, whose logarithm is not finite


def linear_memory_step(
    state: Tensor, q: Tensor, k: Tensor, v: Tensor, eta: Tensor, beta: Tensor, delta: bool
) -> tuple[Tensor, Tensor]:
    """One token: the definition that the chunked form is tested against.

    state [B, K, D, D], q [B, K, group, D], k and v [B, K, D], eta and beta [B, K]. Returns what was read,
    [B, K, group, D], and the next state.
    """
    kept = beta[..., None, None] * state
    new = v - (kept @ k.unsqueeze(-1)).squeeze(-1) if delta else v
    state = kept + eta[..., None, None] * new.unsqueeze(-1) * k.unsqueeze(-2)
    return q @ state.mT, state


def chunked_linear_memory(
    q: Tensor, k: Tensor, v: Tensor, eta: Tensor, beta: Tensor, delta: bool, block: int = BLOCK
) -> Tensor:
    """A whole sequence from an empty memory: blocks of tokens as matrix products (training's form).

    q [B, K, group, T, D], k and v [B, K, T, D], eta and beta [B, K, T] -> what was read, [B, K, group, T, D].

    Within a block that starts with the state S_0, and with Γ_ts = β_{s+1} … β_t:

        S_t = Γ_t0 S_0 + Σ_{s≤t} Γ_ts u_s k_sᵀ,   u_t = η_t (v_t − Γ_t0 S_0 k_t − Σ_{s<t} Γ_ts (k_s·k_t) u_s)

    so u is the solution of a triangular system, whose two right sides (with S_0 and without) are solved for
    all blocks at once. With the delta part off u_t = η_t v_t.
    """
    tokens = q.shape[3]
    pad = -tokens % block  # tokens that write nothing and forget nothing
    q, k, v = (F.pad(x, (0, 0, 0, pad)) for x in (q, k, v))
    eta, beta = F.pad(eta, (0, pad)), F.pad(beta, (0, pad), value=1.0)
    q, k, v = (x.unflatten(-2, (-1, block)) for x in (q, k, v))  # [..., blocks, block, D]
    eta, log_beta = (x.unflatten(-1, (-1, block)) for x in (eta, beta.clamp_min(_LEAST).log()))

    kept = log_beta.cumsum(-1).exp().unsqueeze(-1)  # Γ_t0, [B, K, blocks, block, 1]
    earlier = torch.ones(block, block, dtype=torch.bool, device=q.device).tril(-1)
    # Γ_ts: sums over s < r ≤ t alone; differences of sums from the start would lose what follows a small β
    between = torch.where(earlier, log_beta.unsqueeze(-1), 0.0).cumsum(-2).exp().tril()
    written = eta.unsqueeze(-1) * v  # u without S_0
    if delta:
        system = (eta.unsqueeze(-1) * between * (k @ k.mT)).tril(-1)
        sides = torch.cat((written, eta.unsqueeze(-1) * kept * k), -1)
        solved = torch.linalg.solve_triangular(system, sides, upper=False, unitriangular=True)
        written, erased = solved.split(k.shape[-1], -1)  # u = written − erased S_0ᵀ
    scores = (q @ k.unsqueeze(2).mT) * between.unsqueeze(2)  # [B, K, group, blocks, block, block]
    to_end = between[..., -1, :].unsqueeze(-1)  # Γ from each token to the end of its block

    state = k.new_zeros(*k.shape[:2], v.shape[-1], k.shape[-1])
    outputs = []
    for i in range(k.shape[2]):
        u = written[:, :, i] - erased[:, :, i] @ state.mT if delta else written[:, :, i]
        before = kept[:, :, None, i] * (q[:, :, :, i] @ state.mT.unsqueeze(2))
        outputs.append(before + scores[:, :, :, i] @ u.unsqueeze(2))
        state = kept[:, :, i, -1:] * state + (to_end[:, :, i] * u).mT @ k[:, :, i]
    return torch.stack(outputs, 3).flatten(3, 4)[:, :, :, :tokens]
