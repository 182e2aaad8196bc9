// The test-time memory (MEM), Gemm::kTokens tokens at a time: each pass over the fast weights or the gradient
// serves the whole block of tokens. Symbols as in ref/memory.cpp. `Gemm` has the two matrix products (`nt`
// and `nn`, kernels/gemm.h), the only part that gains from wider registers than AVX2's.
#pragma once

#include "kernels/simd/elementwise.h"

namespace allmem::simd {
namespace {

template <class Gemm>
inline void row_scales(const float* w, const float* norm0, float* r, size_t rows, size_t cols) {
  for (size_t i = 0; i < rows; ++i) {
    float square = 0;
    Gemm::nt(w + i * cols, cols, w + i * cols, cols, &square, 1, 1, 1, cols);
    const float norm = first(square_root(broadcast(square)));
    r[i] = norm > 0 ? norm0[i] / norm : 0.0f;
  }
}

inline void write_matrix(float* w, float* s, float* g, const float* r, size_t rows, size_t cols,
                         float beta_mean) {
  const Vector beta = broadcast(beta_mean);
  for (size_t i = 0; i < rows; ++i, w += cols, s += cols, g += cols) {
    const Vector scale = broadcast(r[i]);
    for_each(s, g, s, cols,
             [&](Vector moment, Vector gradient) { return add_product(beta, moment, gradient); });
    for_each(w, s, w, cols,
             [&](Vector weight, Vector moment) { return add_product(scale, weight, -moment); });
    fill(g, cols, 0);
  }
}

// y[t, :] = x[t, :] Wᵀ
template <class Gemm>
inline void product(const float* x, size_t x_stride, const float* w, float* y, size_t n, size_t rows,
                    size_t cols) {
  fill(y, n * rows, 0);
  Gemm::nt(x, x_stride, w, cols, y, rows, n, rows, cols);
}

// In: a = W_g z and u = W_u z. Out: m = silu(a) ⊙ u with a and u rescaled by r_g and r_u, and into a and u
// the derivatives of m by a and by u: a <- u ⊙ σ(1 + a(1 - σ)), u <- s = a σ.
inline void forward_and_slopes(float* a, float* u, float* m, const float* r_gate, const float* r_up,
                               size_t h) {
  const Vector one = broadcast(1.0f);
  for (size_t i = 0; i < h; i += kLanes) {
    const size_t count = smaller(kLanes, h - i);
    const Vector gate = load_first(a + i, count) * load_first(r_gate + i, count);
    const Vector up = load_first(u + i, count) * load_first(r_up + i, count);
    const Vector sigma = sigmoid(gate), s = gate * sigma;
    const Vector slope = sigma * add_product(gate, one - sigma, one);
    store_first(m + i, count, s * up);
    store_first(a + i, count, up * slope);
    store_first(u + i, count, s);
  }
}

// In: e = W_d m. Out: e = η (z + r_d ⊙ W_d m - v).
inline void error(float* e, const float* r_down, const float* z, const float* v, float eta, size_t D) {
  const Vector rate = broadcast(eta);
  for (size_t d = 0; d < D; d += kLanes) {
    const size_t count = smaller(kLanes, D - d);
    const Vector out =
        add_product(load_first(r_down + d, count), load_first(e + d, count), load_first(z + d, count));
    store_first(e + d, count, rate * (out - load_first(v + d, count)));
  }
}

template <class Gemm>
inline void accumulate_block(const MemoryHead& head, const float* k, size_t k_stride, const float* v,
                             size_t v_stride, const float* eta, size_t eta_stride, size_t n, float* scratch) {
  const size_t D = head.dim, h = head.hidden;
  float* a = scratch;     // [n, h]
  float* u = a + n * h;   // [n, h]
  float* m = u + n * h;   // [n, h]
  float* dm = m + n * h;  // [n, h]
  float* e = dm + n * h;  // [n, D]
  product<Gemm>(k, k_stride, head.w_gate, a, n, h, D);
  product<Gemm>(k, k_stride, head.w_up, u, n, h, D);
  for (size_t t = 0; t < n; ++t)
    forward_and_slopes(a + t * h, u + t * h, m + t * h, head.r_gate, head.r_up, h);
  product<Gemm>(m, h, head.w_down, e, n, D, h);
  for (size_t t = 0; t < n; ++t)
    error(e + t * D, head.r_down, k + t * k_stride, v + t * v_stride, eta[t * eta_stride], D);
  Gemm::nn(e, 1, D, m, h, head.g_down, h, D, h, n);  // ∂W_d = Σ_t e mᵀ

  for (size_t t = 0; t < n; ++t) mul(e + t * D, head.r_down, e + t * D, D);
  fill(dm, n * h, 0);
  Gemm::nn(e, D, 1, head.w_down, h, dm, h, n, h, D);  // dm = Ŵ_dᵀ e = W_dᵀ (r_d ⊙ e)
  mul(a, dm, a, n * h);
  mul(u, dm, u, n * h);
  Gemm::nn(a, 1, h, k, k_stride, head.g_gate, D, h, D, n);  // ∂W_g = Σ_t (dm ⊙ u ⊙ silu'(a)) zᵀ
  Gemm::nn(u, 1, h, k, k_stride, head.g_up, D, h, D, n);    // ∂W_u = Σ_t (dm ⊙ s) zᵀ
}

template <class Gemm>
inline void memory_row_scales(const MemoryHead& head, const float* norm0_gate, const float* norm0_up,
                              const float* norm0_down) {
  row_scales<Gemm>(head.w_gate, norm0_gate, head.r_gate, head.hidden, head.dim);
  row_scales<Gemm>(head.w_up, norm0_up, head.r_up, head.hidden, head.dim);
  row_scales<Gemm>(head.w_down, norm0_down, head.r_down, head.dim, head.hidden);
}

template <class Gemm>
inline size_t memory_scratch(size_t dim, size_t hidden) {
  return Gemm::kTokens * (4 * hidden + dim);
}

template <class Gemm>
inline void memory_read(const MemoryHead& head, const float* q, size_t q_stride, float* y, size_t y_stride,
                        size_t n, float* scratch) {
  const size_t D = head.dim, h = head.hidden;
  for (size_t begin = 0; begin < n; begin += Gemm::kTokens) {
    const size_t count = smaller(Gemm::kTokens, n - begin);
    const float* z = q + begin * q_stride;
    float* out = y + begin * y_stride;
    float* a = scratch;
    float* u = a + count * h;
    product<Gemm>(z, q_stride, head.w_gate, a, count, h, D);
    product<Gemm>(z, q_stride, head.w_up, u, count, h, D);
    silu_mul(a, u, a, count * h);
    for (size_t t = 0; t < count; ++t) copy(z + t * q_stride, out + t * y_stride, D);
    Gemm::nt(a, h, head.w_down, h, out, y_stride, count, D, h);
  }
}

template <class Gemm>
inline void memory_accumulate(const MemoryHead& head, const float* k, size_t k_stride, const float* v,
                              size_t v_stride, const float* eta, size_t eta_stride, size_t n,
                              float* scratch) {
  for (size_t begin = 0; begin < n; begin += Gemm::kTokens) {
    accumulate_block<Gemm>(head, k + begin * k_stride, k_stride, v + begin * v_stride, v_stride,
                           eta + begin * eta_stride, eta_stride, smaller(Gemm::kTokens, n - begin), scratch);
  }
}

inline void memory_write(const MemoryHead& head, float beta_mean) {
  const size_t D = head.dim, h = head.hidden;
  write_matrix(head.w_gate, head.s_gate, head.g_gate, head.r_gate, h, D, beta_mean);
  write_matrix(head.w_up, head.s_up, head.g_up, head.r_up, h, D, beta_mean);
  write_matrix(head.w_down, head.s_down, head.g_down, head.r_down, D, h, beta_mean);
}

}  // namespace
}  // namespace allmem::simd
