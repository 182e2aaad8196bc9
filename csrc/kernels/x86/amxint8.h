// The kernels that gain from AMX, matrix products of bytes in tile registers; all others are AVX-512 VNNI's.
#pragma once

#include "kernels/kernels.h"

namespace allmem::amxint8 {

void linear_q8(const Q8Rows& x, const NBitsMatrix& w, const float* bias, float* y, size_t T, size_t n_begin,
               size_t n_end);

const Kernels& kernels();

}  // namespace allmem::amxint8
