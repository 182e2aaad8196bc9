// A whole table of kernels: those of this folder, and the linear layers of an instruction set.
#pragma once

#include "kernels/simd/attention.h"
#include "kernels/simd/elementwise.h"
#include "kernels/simd/linear_memory.h"
#include "kernels/simd/memory.h"
#include "kernels/simd/softmax.h"

namespace allmem::simd {
namespace {

// Known when it is compiled, so that a table can be looked up by machines that cannot run it.
template <class Gemm>
consteval Kernels table(const char* name, CpuFeatures needs, LinearF32* linear_f32, LinearNBits* linear_nbits,
                        Quantise* quantise, LinearQ8* linear_q8, LinearAffine* linear_affine) {
  return {
      .name = name,
      .needs = needs,
      .linear_f32 = linear_f32,
      .linear_nbits = linear_nbits,
      .quantise = quantise,
      .linear_q8 = linear_q8,
      .linear_affine = linear_affine,
      .dequantise = dequantise,
      .rms_norm = rms_norm,
      .add = add,
      .mul = mul,
      .sigmoid = sigmoid,
      .silu = silu,
      .softplus = softplus,
      .silu_mul = silu_mul,
      .rotate = rotate,
      .attention_scratch = attention_scratch,
      .attention = attention<Gemm>,
      .softmax_step = softmax_step,
      .memory_row_scales = memory_row_scales<Gemm>,
      .memory_scratch = memory_scratch<Gemm>,
      .memory_read = memory_read<Gemm>,
      .memory_accumulate = memory_accumulate<Gemm>,
      .memory_accumulate_fast = memory_accumulate<Gemm>,
      .memory_write = memory_write,
      .linear_memory_write = linear_memory_write<Gemm>,
  };
}

}  // namespace
}  // namespace allmem::simd
