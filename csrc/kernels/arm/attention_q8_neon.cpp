// The steps of attention with 8-bit keys and values, NEON.
#include "kernels/arm/neon.h"
#include "kernels/arm/neon_math.h"

namespace allmem::neon {

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
  float32x4_t largest = vdupq_n_f32(before);
  for (size_t j = 0; j < kKeyTile; j += kLanes) largest = vmaxq_f32(largest, vld1q_f32(scores + j));
  const float after = vmaxvq_f32(largest);
  float32x4_t added = vdupq_n_f32(0);
  for (size_t j = 0; j < kKeyTile; j += kLanes) {
    const float32x4_t weights = exp(vsubq_f32(vld1q_f32(scores + j), vdupq_n_f32(after)));
    added = vaddq_f32(added, weights);
    vst1q_f32(scores + j, vmulq_f32(weights, vld1q_f32(scales + j)));
  }
  // What was never seen has no scale yet, or a stale one: 0 times it need not be 0.
  fill(scores, begin, 0);
  fill(scores + end, kKeyTile - end, 0);
  if (before == after) {  // usual once the largest scores are seen
    *total += vaddvq_f32(added);
    return 1.0f;
  }
  const float shrink = vgetq_lane_f32(exp(vdupq_n_f32(before - after)), 0);  // 0 the first time
  *total = *total * shrink + vaddvq_f32(added);
  *max = after;
  return shrink;
}

}  // namespace

void softmax_step(float* scores, const float* scales, const SeenKeys* seen, size_t rows, float* max,
                  float* total, float* shrink) {
  for (size_t i = 0; i < rows; ++i)
    shrink[i] = softmax_row(scores + i * kKeyTile, scales, seen[i].begin, seen[i].end, max + i, total + i);
}

}  // namespace allmem::neon
