// The kernels that gain from 8-bit matrix products (FEAT_I8MM: Cortex-A510, A710 and X2, Apple's since the
// A15 and M2); all others are those of dotprod.
#pragma once

#include "kernels/kernels.h"

namespace allmem::i8mm {

void linear_q8(const Q8Rows& x, const NBitsMatrix& w, const Onto& onto, float* y, size_t T, size_t n_begin,
               size_t n_end);

const Kernels& kernels();

}  // namespace allmem::i8mm
