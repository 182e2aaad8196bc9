// The steps of attention with 8-bit keys and values, AVX-512.
#include "kernels/x86/avx512_math.h"
#include "kernels/x86/avx512vnni.h"

namespace allmem::avx512vnni {

float softmax_step(float* scores, const float* scales, size_t begin, size_t end, float* max, float* total) {
  constexpr size_t kVectors = kKeyTile / kLanes;
  const uint64_t below_end = end < 64 ? (uint64_t{1} << end) - 1 : ~uint64_t{0};
  const uint64_t seen = begin < end ? below_end & ~uint64_t{0} << begin : 0;
  const auto lanes = [&](size_t i) { return static_cast<__mmask16>(seen >> (i * kLanes)); };
  static_assert(kKeyTile == 64, "one bit of a mask for each key");
  if (seen == 0) {
    for (size_t i = 0; i < kVectors; ++i) _mm512_storeu_ps(scores + i * kLanes, _mm512_setzero_ps());
    return 1.0f;
  }
  const float before = *max;
  const __m512 nothing = _mm512_set1_ps(-__builtin_inff());
  __m512 s[kVectors];
#pragma GCC unroll 4
  for (size_t i = 0; i < kVectors; ++i) s[i] = _mm512_mask_loadu_ps(nothing, lanes(i), scores + i * kLanes);
  const __m512 largest = _mm512_max_ps(_mm512_max_ps(_mm512_max_ps(s[0], s[1]), _mm512_max_ps(s[2], s[3])),
                                       _mm512_set1_ps(before));
  const float after = _mm512_reduce_max_ps(largest);
  const __m512 max_now = _mm512_set1_ps(after);
  __m512 added = _mm512_setzero_ps();
#pragma GCC unroll 4
  for (size_t i = 0; i < kVectors; ++i) {
    const __m512 weights = exp(_mm512_sub_ps(s[i], max_now));
    added = _mm512_add_ps(added, weights);
    _mm512_storeu_ps(scores + i * kLanes,
                     _mm512_maskz_mul_ps(lanes(i), weights, _mm512_loadu_ps(scales + i * kLanes)));
  }
  const float sum = _mm512_reduce_add_ps(added);
  if (before == after) {  // usual once the largest scores are seen
    *total += sum;
    return 1.0f;
  }
  const float shrink = _mm512_cvtss_f32(exp(_mm512_set1_ps(before - after)));  // 0 the first time
  *total = *total * shrink + sum;
  *max = after;
  return shrink;
}

void scale_add(float* y, float factor, const float* x, size_t n) {
  const __m512 f = _mm512_set1_ps(factor);
  for (size_t i = 0; i < n; i += kLanes) {
    const __mmask16 there = first_lanes(n - i);
    const __m512 sum = _mm512_maskz_loadu_ps(there, y + i), term = _mm512_maskz_loadu_ps(there, x + i);
    _mm512_mask_storeu_ps(y + i, there, _mm512_fmadd_ps(sum, f, term));
  }
}

}  // namespace allmem::avx512vnni
