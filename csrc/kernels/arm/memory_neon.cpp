// The test-time memory (MEM) with NEON, 32 tokens at a time: each pass over the fast weights or the gradient
// serves the whole block of tokens. Symbols as in ref/memory.cpp.
#include <cmath>

#include "kernels/arm/neon.h"
#include "kernels/arm/neon_math.h"

namespace allmem::neon {

namespace {

constexpr size_t kTokens = 32;

void row_scales(const float* w, const float* norm0, float* r, size_t rows, size_t cols) {
  for (size_t i = 0; i < rows; ++i) {
    float square = 0;
    gemm_nt(w + i * cols, cols, w + i * cols, cols, &square, 1, 1, 1, cols);
    const float norm = std::sqrt(square);
    r[i] = norm > 0 ? norm0[i] / norm : 0.0f;
  }
}

void write_matrix(float* w, float* s, float* g, const float* r, size_t rows, size_t cols, float beta_mean) {
  for (size_t i = 0; i < rows; ++i, w += cols, s += cols, g += cols) {
    const float scale = r[i];
    for_each(s, g, s, cols, [&](float32x4_t moment, float32x4_t gradient) {
      return vfmaq_n_f32(gradient, moment, beta_mean);
    });
    for_each(w, s, w, cols, [&](float32x4_t weight, float32x4_t moment) {
      return vsubq_f32(vmulq_n_f32(weight, scale), moment);
    });
    fill(g, cols, 0);
  }
}

// y[t, :] = x[t, :] Wᵀ
void product(const float* x, size_t x_stride, const float* w, float* y, size_t n, size_t rows, size_t cols) {
  fill(y, n * rows, 0);
  gemm_nt(x, x_stride, w, cols, y, rows, n, rows, cols);
}

// In: a = W_g z and u = W_u z. Out: m = silu(a) ⊙ u with a and u rescaled by r_g and r_u, and into a and u
// the derivatives of m by a and by u: a <- u ⊙ σ(1 + a(1 - σ)), u <- s = a σ.
void forward_and_slopes(float* a, float* u, float* m, const float* r_gate, const float* r_up, size_t h) {
  const float32x4_t one = vdupq_n_f32(1.0f);
  for (size_t i = 0; i < h; i += kLanes) {
    const size_t count = h - i;
    const float32x4_t gate = vmulq_f32(load_first(a + i, count), load_first(r_gate + i, count));
    const float32x4_t up = vmulq_f32(load_first(u + i, count), load_first(r_up + i, count));
    const float32x4_t sigma = sigmoid(gate), s = vmulq_f32(gate, sigma);
    const float32x4_t slope = vmulq_f32(sigma, vfmaq_f32(one, gate, vsubq_f32(one, sigma)));
    store_first(m + i, count, vmulq_f32(s, up));
    store_first(a + i, count, vmulq_f32(up, slope));
    store_first(u + i, count, s);
  }
}

// In: e = W_d m. Out: e = η (z + r_d ⊙ W_d m - v).
void error(float* e, const float* r_down, const float* z, const float* v, float eta, size_t D) {
  const float32x4_t rate = vdupq_n_f32(eta);
  for (size_t d = 0; d < D; d += kLanes) {
    const size_t count = D - d;
    const float32x4_t out =
        vfmaq_f32(load_first(z + d, count), load_first(r_down + d, count), load_first(e + d, count));
    store_first(e + d, count, vmulq_f32(rate, vsubq_f32(out, load_first(v + d, count))));
  }
}

void accumulate_block(const MemoryHead& head, const float* k, size_t k_stride, const float* v,
                      size_t v_stride, const float* eta, size_t eta_stride, size_t n, float* scratch) {
  const size_t D = head.dim, h = head.hidden;
  float* a = scratch;     // [n, h]
  float* u = a + n * h;   // [n, h]
  float* m = u + n * h;   // [n, h]
  float* dm = m + n * h;  // [n, h]
  float* e = dm + n * h;  // [n, D]
  product(k, k_stride, head.w_gate, a, n, h, D);
  product(k, k_stride, head.w_up, u, n, h, D);
  for (size_t t = 0; t < n; ++t)
    forward_and_slopes(a + t * h, u + t * h, m + t * h, head.r_gate, head.r_up, h);
  product(m, h, head.w_down, e, n, D, h);
  for (size_t t = 0; t < n; ++t)
    error(e + t * D, head.r_down, k + t * k_stride, v + t * v_stride, eta[t * eta_stride], D);
  gemm_nn(e, 1, D, m, h, head.g_down, h, D, h, n);  // ∂W_d = Σ_t e mᵀ

  const auto times = [](float32x4_t p, float32x4_t q) { return vmulq_f32(p, q); };
  for (size_t t = 0; t < n; ++t) for_each(e + t * D, head.r_down, e + t * D, D, times);
  fill(dm, n * h, 0);
  gemm_nn(e, D, 1, head.w_down, h, dm, h, n, h, D);  // dm = Ŵ_dᵀ e = W_dᵀ (r_d ⊙ e)
  for_each(a, dm, a, n * h, times);
  for_each(u, dm, u, n * h, times);
  gemm_nn(a, 1, h, k, k_stride, head.g_gate, D, h, D, n);  // ∂W_g = Σ_t (dm ⊙ u ⊙ silu'(a)) zᵀ
  gemm_nn(u, 1, h, k, k_stride, head.g_up, D, h, D, n);    // ∂W_u = Σ_t (dm ⊙ s) zᵀ
}

}  // namespace

void memory_row_scales(const MemoryHead& head, const float* norm0_gate, const float* norm0_up,
                       const float* norm0_down) {
  row_scales(head.w_gate, norm0_gate, head.r_gate, head.hidden, head.dim);
  row_scales(head.w_up, norm0_up, head.r_up, head.hidden, head.dim);
  row_scales(head.w_down, norm0_down, head.r_down, head.dim, head.hidden);
}

size_t memory_scratch(size_t dim, size_t hidden) { return kTokens * (4 * hidden + dim); }

void memory_read(const MemoryHead& head, const float* q, size_t q_stride, float* y, size_t y_stride, size_t n,
                 float* scratch) {
  const size_t D = head.dim, h = head.hidden;
  for (size_t begin = 0; begin < n; begin += kTokens) {
    const size_t count = smaller(kTokens, n - begin);
    const float* z = q + begin * q_stride;
    float* out = y + begin * y_stride;
    float* a = scratch;
    float* u = a + count * h;
    product(z, q_stride, head.w_gate, a, count, h, D);
    product(z, q_stride, head.w_up, u, count, h, D);
    silu_mul(a, u, a, count * h);
    for (size_t t = 0; t < count; ++t) copy(z + t * q_stride, out + t * y_stride, D);
    gemm_nt(a, h, head.w_down, h, out, y_stride, count, D, h);
  }
}

void memory_accumulate(const MemoryHead& head, const float* k, size_t k_stride, const float* v,
                       size_t v_stride, const float* eta, size_t eta_stride, size_t n, float* scratch) {
  for (size_t begin = 0; begin < n; begin += kTokens) {
    accumulate_block(head, k + begin * k_stride, k_stride, v + begin * v_stride, v_stride,
                     eta + begin * eta_stride, eta_stride, smaller(kTokens, n - begin), scratch);
  }
}

void memory_write(const MemoryHead& head, float beta_mean) {
  const size_t D = head.dim, h = head.hidden;
  write_matrix(head.w_gate, head.s_gate, head.g_gate, head.r_gate, h, D, beta_mean);
  write_matrix(head.w_up, head.s_up, head.g_up, head.r_up, h, D, beta_mean);
  write_matrix(head.w_down, head.s_down, head.g_down, head.r_down, D, h, beta_mean);
}

}  // namespace allmem::neon
