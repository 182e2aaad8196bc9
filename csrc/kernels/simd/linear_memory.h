// The linear memory: what a token writes. Symbols as in ref/linear_memory.cpp.
#pragma once

#include "kernels/simd/vector.h"

namespace allmem::simd {
namespace {

template <class Gemm>
inline void linear_memory_write(float* state, const float* k, const float* v, float eta, float beta,
                                bool delta, size_t dim, float* scratch) {
  float* known = scratch;  // S k
  fill(known, dim, 0);
  if (delta) Gemm::nt(k, dim, state, dim, known, dim, 1, dim, dim);
  const Vector decay = broadcast(beta);
  for (size_t i = 0; i < dim; ++i, state += dim) {
    const Vector change = broadcast(eta * (v[i] - beta * known[i]));
    for_each(state, k, state, dim,
             [&](Vector kept, Vector key) { return add_product(change, key, decay * kept); });
  }
}

}  // namespace
}  // namespace allmem::simd
