// The two float32 matrix products that kernels of an instruction set share.
#pragma once

#include <cstddef>

namespace allmem {

// y[m, n] += Σ_k x[m, k] w[n, k] for m < M, n < N, k < K; each row `stride` floats after the one before.
using GemmNt = void(const float* x, size_t x_stride, const float* w, size_t w_stride, float* y,
                    size_t y_stride, size_t M, size_t N, size_t K);
// y[m, n] += Σ_k p[m * p_row + k * p_col] v[k, n]: the product with P (p_col = 1) or, by its strides, with
// Pᵀ.
using GemmNn = void(const float* p, size_t p_row, size_t p_col, const float* v, size_t v_stride, float* y,
                    size_t y_stride, size_t M, size_t N, size_t K);

}  // namespace allmem
