// The table of the NEON kernels.
#include "kernels/arm/neon.h"

namespace allmem::neon {

const Kernels& kernels() {
  static constexpr Kernels kTable = {
      .name = "neon",
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

}  // namespace allmem::neon
