// Normalisation, elementwise functions and RoPE with NEON. All are bound by memory, not by arithmetic.
#include "kernels/arm/neon.h"
#include "kernels/arm/neon_math.h"

namespace allmem::neon {

void rms_norm(const float* x, const float* weight, float* y, size_t rows, size_t cols, float epsilon) {
  for (size_t r = 0; r < rows; ++r, x += cols, y += cols) {
    float32x4_t squares = vdupq_n_f32(0);
    for (size_t c = 0; c < cols; c += kLanes) {
      const float32x4_t values = load_first(x + c, cols - c);
      squares = vfmaq_f32(squares, values, values);
    }
    const float32x4_t mean = vdupq_n_f32(vaddvq_f32(squares) / static_cast<float>(cols) + epsilon);
    const float32x4_t scale = vdivq_f32(vdupq_n_f32(1.0f), vsqrtq_f32(mean));
    for_each(x, weight, y, cols, [&](float32x4_t value, float32x4_t factor) {
      return vmulq_f32(vmulq_f32(value, scale), factor);
    });
  }
}

void add(const float* a, const float* b, float* y, size_t n) {
  for_each(a, b, y, n, [](float32x4_t p, float32x4_t q) { return vaddq_f32(p, q); });
}

void mul(const float* a, const float* b, float* y, size_t n) {
  for_each(a, b, y, n, [](float32x4_t p, float32x4_t q) { return vmulq_f32(p, q); });
}

void sigmoid(const float* x, float* y, size_t n) {
  for_each(x, y, n, [](float32x4_t v) { return sigmoid(v); });
}

void silu(const float* x, float* y, size_t n) {
  for_each(x, y, n, [](float32x4_t v) { return silu(v); });
}

void softplus(const float* x, float* y, size_t n) {
  for_each(x, y, n, [](float32x4_t v) { return softplus(v); });
}

void silu_mul(const float* gate, const float* up, float* y, size_t n) {
  for_each(gate, up, y, n, [](float32x4_t g, float32x4_t u) { return vmulq_f32(silu(g), u); });
}

void rotate(const float* x, const float* cos, const float* sin, float* y, size_t T, size_t heads, size_t D) {
  const size_t half = D / 2;
  for (size_t t = 0; t < T; ++t, cos += half, sin += half) {
    for (size_t h = 0; h < heads; ++h, x += D, y += D) {
      for (size_t i = 0; i < half; i += kLanes) {
        const size_t count = half - i;
        const float32x4_t re = load_first(x + i, count), im = load_first(x + i + half, count);
        const float32x4_t c = load_first(cos + i, count), s = load_first(sin + i, count);
        store_first(y + i, count, vfmsq_f32(vmulq_f32(re, c), im, s));
        store_first(y + i + half, count, vfmaq_f32(vmulq_f32(re, s), im, c));
      }
    }
  }
}

}  // namespace allmem::neon
