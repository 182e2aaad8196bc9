"""Weights in blocks of 4 or 8 bits, with numpy alone: what the exporter and the assembly write.

Symmetric blocks along the input axis: weight = (code − 2^(bits−1)) · scale. Scales of 4-bit weights are
float16.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Where a matrix' largest weight lies between, no scale overflows float16, and one that is subnormal is off by
# less than 2^-14 of it.
_FLOAT16_SCALES = 2.0**-8, 2.0**15
_SLAB = 1 << 22  # weights quantised at a time: bounds the search's temporaries

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Scales = NDArray[np.float16] | NDArray[np.float32]


def quantize_blocks(weight: Floats, bits: int, block: int) -> tuple[Bytes, Scales]:
    """weight [N, K] -> packed codes [N, K/block, block·bits/8] and scales [N, K/block].

    Scales of 4-bit weights are float16, unless these are too large or all of them too small for that.
    """
    rows, cols = weight.shape
    half = bits == 4 and fits_float16(weight)
    packed = np.empty((rows, cols // block, block * bits // 8), np.uint8)
    scales: Scales = np.empty((rows, cols // block), np.float16 if half else np.float32)
    step = max(1, _SLAB // cols)
    for start in range(0, rows, step):
        x = weight[start : start + step].reshape(-1, cols // block, block)
        codes, scales[start : start + step] = _best_codes(x, bits, scales.dtype)
        packed[start : start + step] = codes if bits == 8 else codes[..., 0::2] | codes[..., 1::2] << 4
    return packed, scales


def fits_float16(weight: Floats) -> bool:
    """Whether the weights are of a size that float16 has scales for."""
    least, most = _FLOAT16_SCALES
    return bool(least <= max(weight.max(initial=0), -weight.min(initial=0)) <= most)


def dequantize_blocks(packed: Bytes, scales: Scales, bits: int) -> Floats:
    """The inverse of quantize_blocks, up to what rounding lost: [N, K]."""
    codes = packed if bits == 8 else np.stack((packed & 15, packed >> 4), -1).reshape(*packed.shape[:2], -1)
    values: Floats = (codes.astype(np.float32) - 2 ** (bits - 1)) * scales.astype(np.float32)[..., None]
    return values.reshape(len(packed), -1)


def _best_codes(x: Floats, bits: int, scale_type: np.dtype[Any]) -> tuple[Bytes, Floats]:
    """Codes and scales of blocks x [..., block] with the least squared error of a few scales of `scale_type`.

    At factor 1 the largest weight maps to −2^(bits−1), the far end of the codes (the scale takes its sign).
    The candidates around it clip it or waste range, on either side. Each is refitted by least squares.
    """
    half = 2 ** (bits - 1)
    spread = np.linspace(0.75, 1.15, 9) if bits == 4 else np.ones(1)
    extreme = np.take_along_axis(x, np.abs(x).argmax(-1, keepdims=True), -1)
    best_error = np.full(extreme.shape, np.inf, np.float32)
    best_scale = np.zeros_like(extreme)
    best_codes = np.full(x.shape, half, np.uint8)
    for factor in (*spread, *(-spread * half / (half - 1))):
        scale = extreme * np.float32(-factor / half)
        inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale != 0)
        q = np.clip(np.rint(x * inverse), -half, half - 1)
        square = np.square(q).sum(-1, keepdims=True)
        scale = np.divide((x * q).sum(-1, keepdims=True), square, out=np.zeros_like(scale), where=square != 0)
        scale = scale.astype(scale_type).astype(np.float32)
        error = np.square(x - q * scale).sum(-1, keepdims=True)
        better = error < best_error
        best_error = np.where(better, error, best_error)
        best_scale = np.where(better, scale, best_scale)
        best_codes = np.where(better, (q + half).astype(np.uint8), best_codes)
    return best_codes, best_scale[..., 0]
