// The scalar kernels: the definition of every entry of the table (contracts in kernels.h).
//
// Sums run in double: the definition's own rounding is then negligible, and a fast kernel's tolerance
// follows from that kernel alone. Everything stored is float32.
#pragma once

#include "kernels/kernels.h"

namespace allmem::ref {

LinearF32 linear_f32;
LinearNBits linear_nbits;
Quantise quantise;
LinearQ8 linear_q8;
LinearAffine linear_affine;
Dequantise dequantise;

RmsNorm rms_norm;
Binary add, mul, silu_mul;
Unary sigmoid, silu, softplus;
Rotate rotate;

AttentionScratch attention_scratch;
Attention attention;
SoftmaxStep softmax_step;

MemoryRowScales memory_row_scales;
MemoryScratch memory_scratch;
MemoryRead memory_read;
MemoryAccumulate memory_accumulate;
MemoryWrite memory_write;

LinearMemoryWrite linear_memory_write;

}  // namespace allmem::ref
