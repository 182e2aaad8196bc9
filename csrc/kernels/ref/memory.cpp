// The test-time memory (MEM), scalar: M_W(z) = z + W_d (silu(W_g z) ⊙ (W_u z)), its gradient and its update.
#include <algorithm>
#include <cmath>

#include "kernels/ref/ref.h"

namespace allmem::ref {

namespace {

double dot(const float* a, const float* b, size_t n) {
  double sum = 0;
  for (size_t i = 0; i < n; ++i) sum += double{a[i]} * double{b[i]};
  return sum;
}

void row_scales(const float* w, const float* norm0, float* r, size_t rows, size_t cols) {
  for (size_t i = 0; i < rows; ++i, w += cols) {
    const double norm = std::sqrt(dot(w, w, cols));
    r[i] = norm > 0 ? static_cast<float>(double{norm0[i]} / norm) : 0.0f;
  }
}

void write_matrix(float* w, float* s, float* g, const float* r, size_t rows, size_t cols, float beta_mean) {
  for (size_t i = 0; i < rows; ++i) {
    for (size_t j = i * cols; j < (i + 1) * cols; ++j) {
      s[j] = beta_mean * s[j] + g[j];
      w[j] = r[i] * w[j] - s[j];
      g[j] = 0;
    }
  }
}

}  // namespace

void memory_row_scales(const MemoryHead& head, const float* norm0_gate, const float* norm0_up,
                       const float* norm0_down) {
  row_scales(head.w_gate, norm0_gate, head.r_gate, head.hidden, head.dim);
  row_scales(head.w_up, norm0_up, head.r_up, head.hidden, head.dim);
  row_scales(head.w_down, norm0_down, head.r_down, head.dim, head.hidden);
}

size_t memory_scratch(size_t dim, size_t hidden) { return 3 * hidden + dim; }

void memory_read(const MemoryHead& head, const float* q, size_t q_stride, float* y, size_t y_stride, size_t n,
                 float* scratch) {
  const size_t D = head.dim, h = head.hidden;
  float* m = scratch;
  for (size_t t = 0; t < n; ++t, q += q_stride, y += y_stride) {
    for (size_t i = 0; i < h; ++i) {
      const float a = static_cast<float>(dot(head.w_gate + i * D, q, D));
      const float u = static_cast<float>(dot(head.w_up + i * D, q, D));
      m[i] = a / (1.0f + std::exp(-a)) * u;  // silu(a) u
    }
    for (size_t d = 0; d < D; ++d) y[d] = static_cast<float>(double{q[d]} + dot(head.w_down + d * h, m, h));
  }
}

void memory_accumulate(const MemoryHead& head, const float* k, size_t k_stride, const float* v,
                       size_t v_stride, const float* eta, size_t eta_stride, size_t n, float* scratch) {
  const size_t D = head.dim, h = head.hidden;
  float* a = scratch;  // Ŵ_g z
  float* u = a + h;    // Ŵ_u z
  float* m = u + h;    // silu(a) ⊙ u
  float* e = m + h;    // η (M_Ŵ(z) - v)
  for (size_t t = 0; t < n; ++t, k += k_stride, v += v_stride, eta += eta_stride) {
    const float* z = k;
    for (size_t i = 0; i < h; ++i) {
      a[i] = static_cast<float>(double{head.r_gate[i]} * dot(head.w_gate + i * D, z, D));
      u[i] = static_cast<float>(double{head.r_up[i]} * dot(head.w_up + i * D, z, D));
      m[i] = a[i] / (1.0f + std::exp(-a[i])) * u[i];
    }
    for (size_t d = 0; d < D; ++d) {
      const double out = double{z[d]} + double{head.r_down[d]} * dot(head.w_down + d * h, m, h);
      e[d] = static_cast<float>(double{eta[0]} * (out - double{v[d]}));
      for (size_t i = 0; i < h; ++i) head.g_down[d * h + i] += e[d] * m[i];  // ∂W_d = e mᵀ
    }
    for (size_t i = 0; i < h; ++i) {
      double dm = 0;  // dm = Ŵ_dᵀ e
      for (size_t d = 0; d < D; ++d)
        dm += double{head.w_down[d * h + i]} * double{head.r_down[d]} * double{e[d]};
      const float sigma = 1.0f / (1.0f + std::exp(-a[i]));
      const float up = static_cast<float>(dm) * (a[i] * sigma);  // dm ⊙ s
      const float gate =
          static_cast<float>(dm) * u[i] * (sigma * (1.0f + a[i] * (1.0f - sigma)));  // dm ⊙ u ⊙ silu'(a)
      for (size_t d = 0; d < D; ++d) {
        head.g_up[i * D + d] += up * z[d];      // ∂W_u = (dm ⊙ s) zᵀ
        head.g_gate[i * D + d] += gate * z[d];  // ∂W_g = (dm ⊙ u ⊙ silu'(a)) zᵀ
      }
    }
  }
}

void memory_write(const MemoryHead& head, float beta_mean) {
  const size_t D = head.dim, h = head.hidden;
  write_matrix(head.w_gate, head.s_gate, head.g_gate, head.r_gate, h, D, beta_mean);
  write_matrix(head.w_up, head.s_up, head.g_up, head.r_up, h, D, beta_mean);
  write_matrix(head.w_down, head.s_down, head.g_down, head.r_down, D, h, beta_mean);
}

}  // namespace allmem::ref
