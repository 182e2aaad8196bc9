// The steps of attention with 8-bit keys and values, AVX2.
#include "kernels/x86/avx2.h"
#include "kernels/x86/avx2_math.h"

namespace allmem::avx2 {

void softmax_step(float* scores, size_t begin, size_t end, float* max, float* total, float* sum, size_t D) {
  if (begin >= end) return fill(scores, kKeyTile, 0);
  const float before = *max;
  fill(scores, begin, -__builtin_inff());
  fill(scores + end, kKeyTile - end, -__builtin_inff());
  __m256 largest = _mm256_set1_ps(before);
  for (size_t j = 0; j < kKeyTile; j += kLanes) largest = _mm256_max_ps(largest, _mm256_loadu_ps(scores + j));
  const float after = horizontal_max(largest);
  const __m256 max_now = _mm256_set1_ps(after);
  __m256 added = _mm256_setzero_ps();
  for (size_t j = 0; j < kKeyTile; j += kLanes) {
    const __m256 weights = exp(_mm256_sub_ps(_mm256_loadu_ps(scores + j), max_now));
    added = _mm256_add_ps(added, weights);
    _mm256_storeu_ps(scores + j, weights);
  }
  if (before == after) {  // usual once the largest scores are seen
    *total += horizontal_sum(added);
    return;
  }
  const __m256 shrink = exp(_mm256_sub_ps(_mm256_set1_ps(before), max_now));  // 0 the first time
  *total = *total * _mm256_cvtss_f32(shrink) + horizontal_sum(added);
  *max = after;
  for_each(sum, sum, D, [&](__m256 v) { return _mm256_mul_ps(v, shrink); });
}

void weighted_sum(const float* p, size_t p_stride, const float* v, size_t v_stride, float* y, size_t y_stride,
                  size_t M, size_t N, size_t K) {
  gemm_nn(p, p_stride, 1, v, v_stride, y, y_stride, M, N, K);
}

void dequantise(const uint8_t* codes, const float* scales, size_t stride, float* x, size_t n, size_t D) {
  const __m256i zero = _mm256_set1_epi32(128);
  for (size_t i = 0; i < n; ++i, codes += stride, scales += stride / kQ8Group, x += D) {
    for (size_t d = 0; d < D; d += kLanes) {  // the codes of a row fill whole groups
      const __m128i eight = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes + d));
      const __m256 values = _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_cvtepu8_epi32(eight), zero));
      const __m256 scaled = _mm256_mul_ps(values, _mm256_broadcast_ss(scales + d / kQ8Group));
      if (d + kLanes <= D) {
        _mm256_storeu_ps(x + d, scaled);
      } else {
        _mm256_maskstore_ps(x + d, first_lanes(D - d), scaled);
      }
    }
  }
}

}  // namespace allmem::avx2
