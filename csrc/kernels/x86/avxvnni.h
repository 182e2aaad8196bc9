// The kernels that gain from AVX-VNNI; all others are AVX2's.
#pragma once

#include "kernels/kernels.h"

namespace allmem::avxvnni {

void linear_q8(const Q8Rows& x, const NBitsMatrix& w, const Onto& onto, float* y, size_t T, size_t n_begin,
               size_t n_end);

const Kernels& kernels();

}  // namespace allmem::avxvnni
