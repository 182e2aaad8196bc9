"""Weights in blocks of 4 or 8 bits, with numpy alone: what the exporter and the assembly write.

Symmetric blocks along the input axis: weight = (code − 2^(bits−1)) · scale. Scales of 4-bit weights are
float16. Affine blocks, of 4 bits: weight = (code − zero point) · scale, both float16.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Where a matrix' largest weight lies between, no scale overflows float16, and one that is subnormal is off by
# less than 2^-14 of it.
_FLOAT16_SCALES = 2.0**-8, 2.0**15
_LARGEST_ZERO = 1024.0  # of an affine block: float16 knows half a code there
_SLAB = 1 << 22  # weights quantised at a time: bounds the search's temporaries

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Halves = NDArray[np.float16]
Scales = Halves | NDArray[np.float32]


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


def quantize_affine(weight: Floats, block: int) -> tuple[Bytes, Halves, Halves]:
    """weight [N, K] -> codes of 4 bits [N, K/block, block/2], scales and zero points [N, K/block].

    The least and the largest weight of a block are its codes 0 and 15, so that a matrix that was quantised so
    (GGUF's Q4_1, in blocks of 32) gets the codes and scales back that it had. Needs fits_float16(weight).
    """
    rows, cols = weight.shape
    packed = np.empty((rows, cols // block, block // 2), np.uint8)
    scales, zeros = np.empty((2, rows, cols // block), np.float16)
    step = max(1, _SLAB // cols)
    for start in range(0, rows, step):
        x = weight[start : start + step].reshape(-1, cols // block, block)
        least, most = x.min(-1), x.max(-1)
        scale = ((most - least) / 15).astype(np.float16).astype(np.float32)
        zero = np.divide(-least, scale, out=np.full_like(least, np.inf), where=scale != 0)
        # One value, or nearly: it becomes the scale, as float16 has no zero point for it.
        single = np.abs(zero) > _LARGEST_ZERO
        scale = np.where(single, (least + most) / 2, scale).astype(np.float16)
        zero = np.where(single, 0, zero).astype(np.float16)
        inverse = np.divide(1, scale, out=np.zeros_like(least), where=scale != 0, dtype=np.float32)
        codes = np.rint(x * inverse[..., None] + zero.astype(np.float32)[..., None])
        codes = np.where(single[..., None], 1, np.clip(codes, 0, 15)).astype(np.uint8)
        packed[start : start + step] = codes[..., 0::2] | codes[..., 1::2] << 4
        scales[start : start + step], zeros[start : start + step] = scale, zero
    return packed, scales, zeros


def dequantize_affine(packed: Bytes, scales: Halves, zeros: Halves) -> Floats:
    """The inverse of quantize_affine, up to what rounding lost: [N, K]."""
    codes = _unpacked(packed).astype(np.float32) - zeros.astype(np.float32)[..., None]
    return (codes * scales.astype(np.float32)[..., None]).reshape(len(packed), -1)


def fits_float16(weight: Floats) -> bool:
    """Whether the weights are of a size that float16 has scales for."""
    least, most = _FLOAT16_SCALES
    return bool(least <= max(weight.max(initial=0), -weight.min(initial=0)) <= most)


def dequantize_blocks(packed: Bytes, scales: Scales, bits: int) -> Floats:
    """The inverse of quantize_blocks, up to what rounding lost: [N, K]."""
    codes = packed if bits == 8 else _unpacked(packed)
    values: Floats = (codes.astype(np.float32) - 2 ** (bits - 1)) * scales.astype(np.float32)[..., None]
    return values.reshape(len(packed), -1)


def _unpacked(packed: Bytes) -> Bytes:
    """Codes of 4 bits, one a byte."""
    return np.stack((packed & 15, packed >> 4), -1).reshape(*packed.shape[:2], -1)


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
