// The table of the AVX2 kernels. Compiled for the baseline: looking it up is safe on any machine.
#include "kernels/x86/avx2.h"

namespace allmem::avx2 {

const Kernels& kernels() {
  static constexpr Kernels kTable = {
      .name = "avx2",
      .linear_f32 = linear_f32,
      .linear_nbits = linear_nbits,
      .rms_norm = rms_norm,
      .add = add,
      .mul = mul,
      .sigmoid = sigmoid,
      .silu = silu,
      .softplus = softplus,
      .silu_mul = silu_mul,
      .rotate = rotate,
      .attention_scratch = attention_scratch,
      .attention = attention,
      .memory_row_scales = memory_row_scales,
      .memory_scratch = memory_scratch,
      .memory_read = memory_read,
      .memory_accumulate = memory_accumulate,
      .memory_write = memory_write,
  };
  return kTable;
}

}  // namespace allmem::avx2
