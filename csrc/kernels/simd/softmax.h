// The step of an online softmax that attention with 8-bit keys and values takes.
#pragma once

#include "kernels/simd/vector.h"

namespace allmem::simd {
namespace {

// Of one query, for the keys [begin, end); returns what `shrink` is set to.
inline float softmax_row(float* scores, const float* scales, size_t begin, size_t end, float* max_score,
                         float* total) {
  if (begin >= end) {
    fill(scores, kKeyTile, 0);
    return 1.0f;
  }
  const float before = *max_score;
  fill(scores, begin, -__builtin_inff());
  fill(scores + end, kKeyTile - end, -__builtin_inff());
  Vector highest = broadcast(before);
  for (size_t j = 0; j < kKeyTile; j += kLanes) highest = max(highest, load(scores + j));
  const float after = largest(highest);
  Vector added = broadcast(0);
  for (size_t j = 0; j < kKeyTile; j += kLanes) {
    const Vector weights = exp(load(scores + j) - broadcast(after));
    added += weights;
    store(scores + j, weights * load(scales + j));
  }
  // What was never seen has no scale yet, or a stale one: 0 times it need not be 0.
  fill(scores, begin, 0);
  fill(scores + end, kKeyTile - end, 0);
  if (before == after) {  // usual once the largest scores are seen
    *total += sum(added);
    return 1.0f;
  }
  const float shrink = first(exp(broadcast(before - after)));  // 0 the first time
  *total = *total * shrink + sum(added);
  *max_score = after;
  return shrink;
}

inline void softmax_step(float* scores, const float* scales, const SeenKeys* seen, size_t rows, float* max,
                         float* total, float* shrink) {
  for (size_t i = 0; i < rows; ++i)
    shrink[i] = softmax_row(scores + i * kKeyTile, scales, seen[i].begin, seen[i].end, max + i, total + i);
}

}  // namespace
}  // namespace allmem::simd
