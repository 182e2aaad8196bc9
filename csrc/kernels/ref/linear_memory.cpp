// The linear memory, scalar: S = β S + η (v - β S k) kᵀ.
#include "kernels/ref/ref.h"

namespace allmem::ref {

void linear_memory_write(float* state, const float* k, const float* v, float eta, float beta, bool delta,
                         size_t dim, float* /*scratch*/) {
  for (size_t i = 0; i < dim; ++i, state += dim) {
    double known = 0;
    for (size_t j = 0; delta && j < dim; ++j) known += double{state[j]} * double{k[j]};
    const double change = double{eta} * (double{v[i]} - double{beta} * known);
    for (size_t j = 0; j < dim; ++j)
      state[j] = static_cast<float>(double{beta} * double{state[j]} + change * double{k[j]});
  }
}

}  // namespace allmem::ref
