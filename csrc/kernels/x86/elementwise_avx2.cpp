// Normalisation, elementwise functions and RoPE with AVX2. All are bound by memory, not by arithmetic.
#include "kernels/x86/avx2.h"
#include "kernels/x86/avx2_math.h"

namespace allmem::avx2 {

void rms_norm(const float* x, const float* weight, float* y, size_t rows, size_t cols, float epsilon) {
  for (size_t r = 0; r < rows; ++r, x += cols, y += cols) {
    __m256 squares = _mm256_setzero_ps();
    size_t c = 0;
    for (; c + kLanes <= cols; c += kLanes) {
      const __m256 values = _mm256_loadu_ps(x + c);
      squares = _mm256_fmadd_ps(values, values, squares);
    }
    if (c < cols) {
      const __m256 values = _mm256_maskload_ps(x + c, first_lanes(cols - c));
      squares = _mm256_fmadd_ps(values, values, squares);
    }
    const __m256 mean = _mm256_set1_ps(horizontal_sum(squares) / static_cast<float>(cols) + epsilon);
    const __m256 scale = _mm256_div_ps(_mm256_set1_ps(1.0f), _mm256_sqrt_ps(mean));
    for_each(x, weight, y, cols,
             [&](__m256 value, __m256 factor) { return _mm256_mul_ps(_mm256_mul_ps(value, scale), factor); });
  }
}

void add(const float* a, const float* b, float* y, size_t n) {
  for_each(a, b, y, n, [](__m256 p, __m256 q) { return _mm256_add_ps(p, q); });
}

void mul(const float* a, const float* b, float* y, size_t n) {
  for_each(a, b, y, n, [](__m256 p, __m256 q) { return _mm256_mul_ps(p, q); });
}

void sigmoid(const float* x, float* y, size_t n) {
  for_each(x, y, n, [](__m256 v) { return sigmoid(v); });
}

void silu(const float* x, float* y, size_t n) {
  for_each(x, y, n, [](__m256 v) { return silu(v); });
}

void softplus(const float* x, float* y, size_t n) {
  for_each(x, y, n, [](__m256 v) { return softplus(v); });
}

void silu_mul(const float* gate, const float* up, float* y, size_t n) {
  for_each(gate, up, y, n, [](__m256 g, __m256 u) { return _mm256_mul_ps(silu(g), u); });
}

void rotate(const float* x, const float* cos, const float* sin, float* y, size_t T, size_t heads, size_t D) {
  const size_t half = D / 2;
  for (size_t t = 0; t < T; ++t, cos += half, sin += half) {
    for (size_t h = 0; h < heads; ++h, x += D, y += D) {
      for (size_t i = 0; i < half; i += kLanes) {
        const size_t count = smaller(kLanes, half - i);
        const __m256 re = load_first(x + i, count), im = load_first(x + i + half, count);
        const __m256 c = load_first(cos + i, count), s = load_first(sin + i, count);
        store_first(y + i, count, _mm256_fmsub_ps(re, c, _mm256_mul_ps(im, s)));
        store_first(y + i + half, count, _mm256_fmadd_ps(im, c, _mm256_mul_ps(re, s)));
      }
    }
  }
}

}  // namespace allmem::avx2
