"""How far normally distributed weights come out of 4 bits: ours and the rival's Q4_0.

    python bench/weight_error.py

Prints the root mean square of the error to that of the weights. Needs allmem-edge[export] and gguf.
"""

from __future__ import annotations

import gguf
import numpy as np

from accuracy import relative
from allmem_edge.blocks import dequantize_blocks, quantize_blocks
from allmem_export.quantize import BLOCK_SIZES


def main() -> None:
    weights = np.random.default_rng(0).standard_normal((1024, 1024), np.float32)
    codes, scales = quantize_blocks(weights, 4, BLOCK_SIZES[0])
    q4_0 = gguf.GGMLQuantizationType.Q4_0
    theirs = gguf.quants.dequantize(gguf.quants.quantize(weights, q4_0), q4_0)
    print(f"ours, 4.25 bits: {relative(dequantize_blocks(codes, scales, 4), weights):.2%}")
    print(f"Q4_0, 4.5 bits: {relative(theirs, weights):.2%}")


if __name__ == "__main__":
    main()
