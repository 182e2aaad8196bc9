"""The short-term memory: causal softmax attention over a sliding window and the first tokens ("sinks")."""

from __future__ import annotations

import torch
from torch import Tensor


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RoPE as in Qwen and Llama: channel i pairs with i + D/2. x [..., T, D]; cos, sin [T, D/2]."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def rope_angles(positions: Tensor, inv_freq: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """cos and sin [T, D/2] at integer positions [T]; the angle is formed in double precision."""
    angle = positions.double()[:, None] * inv_freq.double()
    return (angle.cos() * scale).float(), (angle.sin() * scale).float()


def _rotated(x: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
    """`rotate`, computed in float32 at least and returned in x's dtype."""
    wide = torch.promote_types(x.dtype, torch.float32)
    rotated: Tensor = rotate(x.to(wide), angles[0].to(wide), angles[1].to(wide)).to(x.dtype)
    return rotated


def causal_attention(q: Tensor, k: Tensor, v: Tensor, inv_freq: Tensor, rope_scale: float) -> Tensor:
    """Attention to everything before: q [B, K, group, T, D], k and v [B, K, T, D] -> as q."""
    angles = rope_angles(torch.arange(q.shape[-2], device=q.device), inv_freq, rope_scale)
    out = torch.nn.functional.scaled_dot_product_attention(
        _rotated(q, angles).flatten(1, 2), _rotated(k, angles), v, is_causal=True, enable_gqa=True
    )
    attended: Tensor = out.unflatten(1, q.shape[1:3])
    return attended


def rotated_for_window(
    q: Tensor, k: Tensor, inv_freq: Tensor, rope_scale: float, window: int, sinks: int
) -> tuple[Tensor, Tensor, Tensor]:
    """q for keys of the window, q for sinks, and k: rotated, from position 0 on.

    q [B, K, group, T, D] and k [B, K, T, D] unrotated. A sink key meets the query rotated at
    min(t, sinks + window − 1), so that no relative distance exceeds it. Angles and rotations are float32 at
    least, whatever the dtype of q.
    """
    positions = torch.arange(q.shape[-2], device=q.device)
    angles = rope_angles(positions, inv_freq, rope_scale)
    q_rot, k_rot = _rotated(q, angles), _rotated(k, angles)
    if not sinks:
        return q_rot, q_rot, k_rot
    clamped = rope_angles(positions.clamp(max=sinks + window - 1), inv_freq, rope_scale)
    return q_rot, _rotated(q, clamped), k_rot


def window_attention(q: Tensor, q_sink: Tensor, k: Tensor, v: Tensor, window: int, sinks: int) -> Tensor:
    """Attention of whole sequences that start at position 0 (training's form).

    q, q_sink [B, K, group, T, D] and k [B, K, T, D] rotated (rotated_for_window), v [B, K, T, D] ->
    [B, K, group, T, D]. Token t sees tokens s with t − window < s ≤ t, and the first `sinks` tokens up to t.
    Works in blocks of `window` queries against two blocks of keys, so that the cost grows with T · window.
    """
    tokens, dim = q.shape[-2:]
    block = min(window, tokens)
    blocks = -(-tokens // block)
    pad = blocks * block - tokens

    def to_blocks(x: Tensor) -> Tensor:  # [..., T, D] -> [..., blocks, block, D]
        cut: Tensor = torch.nn.functional.pad(x, (0, 0, 0, pad)).unflatten(-2, (blocks, block))
        return cut

    def with_previous(x: Tensor) -> Tensor:  # [..., blocks, block, D] -> [..., blocks, 2 block, D]
        return torch.cat((torch.nn.functional.pad(x, (0, 0, 0, 0, 1, -1)), x), dim=-2)

    keys = with_previous(to_blocks(k)).unsqueeze(2)
    values = with_previous(to_blocks(v)).unsqueeze(2)
    scores = to_blocks(q) @ keys.mT  # [B, K, group, blocks, block, 2 block]
    t = torch.arange(blocks * block, device=q.device).view(blocks, block, 1)
    s = t[:, :1] - block + torch.arange(2 * block, device=q.device)  # [blocks, 1, 2 block]
    visible = (s <= t) & (s > t - window) & (s >= min(sinks, tokens))
    scores = scores.masked_fill(~visible, float("-inf"))
    if sinks:
        n = min(sinks, tokens)
        sink_scores = to_blocks(q_sink) @ k[:, :, None, None, :n].mT
        sink_scores = sink_scores.masked_fill(torch.arange(n, device=q.device) > t, float("-inf"))
        scores = torch.cat((sink_scores, scores), dim=-1)
    weights = torch.softmax(scores * dim**-0.5, dim=-1)
    if sinks:
        out = weights[..., :n] @ v[:, :, None, None, :n] + weights[..., n:] @ values
    else:
        out = weights @ values
    return out.flatten(3, 4)[..., :tokens, :]
