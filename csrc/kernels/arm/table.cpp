// The tables of the 64-bit Arm kernels. Compiled for the baseline: looking them up is safe on any machine.
#include "kernels/arm/dotprod.h"
#include "kernels/arm/i8mm.h"
#include "kernels/arm/neon.h"

namespace allmem::neon {

const Kernels& kernels() {
  static constexpr Kernels kTable = {
      .name = "neon",
      .needs = 0,
      .linear_f32 = linear_f32,
      .linear_nbits = linear_nbits,
      .quantise = quantise,
      .linear_q8 = linear_q8,
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
      .softmax_step = softmax_step,
      .memory_row_scales = memory_row_scales,
      .memory_scratch = memory_scratch,
      .memory_read = memory_read,
      .memory_accumulate = memory_accumulate,
      .memory_accumulate_fast = memory_accumulate,
      .memory_write = memory_write,
  };
  return kTable;
}

}  // namespace allmem::neon

namespace allmem::dotprod {

const Kernels& kernels() {
  static const Kernels kTable = [] {
    Kernels table = neon::kernels();
    table.name = "dotprod";
    table.needs = cpu::kDotProduct;
    table.linear_q8 = linear_q8;
    return table;
  }();
  return kTable;
}

}  // namespace allmem::dotprod

namespace allmem::i8mm {

const Kernels& kernels() {
  static const Kernels kTable = [] {
    Kernels table = dotprod::kernels();
    table.name = "i8mm";
    table.needs = cpu::kDotProduct | cpu::kInt8MatrixProduct;
    table.linear_q8 = linear_q8;
    return table;
  }();
  return kTable;
}

}  // namespace allmem::i8mm
