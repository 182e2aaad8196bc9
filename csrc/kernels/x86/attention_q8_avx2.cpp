// The steps of attention with 8-bit keys and values, AVX2.
#include "kernels/x86/avx2.h"
#include "kernels/x86/avx2_math.h"

namespace allmem::avx2 {

namespace {

// Of one query, for the keys [begin, end); returns what `shrink` is set to.
float softmax_row(float* scores, const float* scales, size_t begin, size_t end, float* max, float* total) {
  if (begin >= end) {
    fill(scores, kKeyTile, 0);
    return 1.0f;
  }
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
    _mm256_storeu_ps(scores + j, _mm256_mul_ps(weights, _mm256_loadu_ps(scales + j)));
  }
  // What was never seen has no scale yet, or a stale one: 0 times it need not be 0.
  fill(scores, begin, 0);
  fill(scores + end, kKeyTile - end, 0);
  if (before == after) {  // usual once the largest scores are seen
    *total += horizontal_sum(added);
    return 1.0f;
  }
  const float shrink = _mm256_cvtss_f32(exp(_mm256_set1_ps(before - after)));  // 0 the first time
  *total = *total * shrink + horizontal_sum(added);
  *max = after;
  return shrink;
}

}  // namespace

void softmax_step(float* scores, const float* scales, const SeenKeys* seen, size_t rows, float* max,
                  float* total, float* shrink) {
  for (size_t i = 0; i < rows; ++i)
    shrink[i] = softmax_row(scores + i * kKeyTile, scales, seen[i].begin, seen[i].end, max + i, total + i);
}

}  // namespace allmem::avx2
