// The table of the scalar kernels.
#include "kernels/ref/ref.h"

namespace allmem {

const Kernels& ref_kernels() {
  static constexpr Kernels kTable = {
      .name = "ref",
      .needs = 0,
      .linear_f32 = ref::linear_f32,
      .linear_nbits = ref::linear_nbits,
      .quantise = ref::quantise,
      .linear_q8 = ref::linear_q8,
      .linear_affine = ref::linear_affine,
      .dequantise = ref::dequantise,
      .rms_norm = ref::rms_norm,
      .add = ref::add,
      .mul = ref::mul,
      .sigmoid = ref::sigmoid,
      .silu = ref::silu,
      .softplus = ref::softplus,
      .silu_mul = ref::silu_mul,
      .rotate = ref::rotate,
      .attention_scratch = ref::attention_scratch,
      .attention = ref::attention,
      .softmax_step = ref::softmax_step,
      .memory_row_scales = ref::memory_row_scales,
      .memory_scratch = ref::memory_scratch,
      .memory_read = ref::memory_read,
      .memory_accumulate = ref::memory_accumulate,
      .memory_accumulate_fast = ref::memory_accumulate,
      .memory_write = ref::memory_write,
      .linear_memory_write = ref::linear_memory_write,
  };
  return kTable;
}

}  // namespace allmem
