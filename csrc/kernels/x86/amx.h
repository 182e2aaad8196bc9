// The kernels that gain from AMX, matrix products of bytes and of bfloat16 in tile registers; all others are
// AVX-512 VNNI's.
#pragma once

#include "kernels/kernels.h"

namespace allmem::amx {

void linear_q8(const Q8Rows& x, const NBitsMatrix& w, const Onto& onto, float* y, size_t T, size_t n_begin,
               size_t n_end);

size_t memory_scratch(size_t dim, size_t hidden);
// Products exact to 2^-16.
void memory_accumulate_fast(const MemoryHead& head, const float* k, size_t k_stride, const float* v,
                            size_t v_stride, const float* eta, size_t eta_stride, size_t n, float* scratch);

const Kernels& kernels();

}  // namespace allmem::amx
