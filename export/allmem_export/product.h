// The matrix product of the fused operations of training.
#pragma once

#include <ATen/ATen.h>

// C [m, n] = (or +=) op(A) op(B), all row-major and dense; A is [m, k], or [k, m] if transposed; B likewise.
inline void product(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, const float* a,
                    const float* b, float* c, bool add) {
  const auto matrix = [](const float* x, int64_t rows, int64_t cols, bool transpose) {
    at::Tensor t = at::from_blob(const_cast<float*>(x), {rows, cols}, at::kFloat);
    return transpose ? t.t() : t;
  };
  const at::Tensor left = transpose_a ? matrix(a, k, m, true) : matrix(a, m, k, false);
  const at::Tensor right = transpose_b ? matrix(b, n, k, true) : matrix(b, k, n, false);
  at::Tensor out = matrix(c, m, n, false);
  if (add)
    out.addmm_(left, right);
  else
    at::mm_out(out, left, right);
}
