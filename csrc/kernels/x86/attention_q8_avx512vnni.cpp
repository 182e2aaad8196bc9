// The steps of attention with 8-bit keys and values, AVX-512.
#include "kernels/x86/avx512_math.h"
#include "kernels/x86/avx512vnni.h"

namespace allmem::avx512vnni {

namespace {

constexpr size_t kVectors = kKeyTile / kLanes;

// The step for `kRows` queries, instruction by instruction: that of one is a chain, whose latencies are
// hidden behind those of another.
template <size_t kRows>
void softmax_rows(float* scores, const float* scales, const SeenKeys* seen, float* max, float* total,
                  float* shrink) {
  static_assert(kKeyTile == 64, "one bit of a mask for each key");
  constexpr size_t kAll = kRows * kVectors;
  const __m512 nothing = _mm512_set1_ps(-__builtin_inff());
  __mmask16 lanes[kAll];
  __m512 x[kAll];
#pragma GCC unroll 16
  for (size_t i = 0; i < kAll; ++i) {
    const auto [begin, end] = seen[i / kVectors];
    const uint64_t below_end = end < 64 ? (uint64_t{1} << end) - 1 : ~uint64_t{0};
    const uint64_t keys = begin < end ? below_end & ~uint64_t{0} << begin : 0;
    lanes[i] = static_cast<__mmask16>(keys >> (i % kVectors * kLanes));
    x[i] = _mm512_mask_loadu_ps(nothing, lanes[i], scores + i * kLanes);
  }
  float after[kRows];
#pragma GCC unroll 4
  for (size_t r = 0; r < kRows; ++r) {
    const __m512* row = x + r * kVectors;
    after[r] = _mm512_reduce_max_ps(_mm512_max_ps(
        _mm512_max_ps(_mm512_max_ps(row[0], row[1]), _mm512_max_ps(row[2], row[3])), _mm512_set1_ps(max[r])));
  }
#pragma GCC unroll 16
  for (size_t i = 0; i < kAll; ++i) x[i] = _mm512_sub_ps(x[i], _mm512_set1_ps(after[i / kVectors]));
  exp_each(x);
#pragma GCC unroll 16
  for (size_t i = 0; i < kAll; ++i) {
    x[i] = _mm512_maskz_mov_ps(lanes[i], x[i]);  // all of a row's keys may be unseen, and its maximum -inf
    _mm512_storeu_ps(scores + i * kLanes,
                     _mm512_maskz_mul_ps(lanes[i], x[i], _mm512_loadu_ps(scales + i % kVectors * kLanes)));
  }
#pragma GCC unroll 4
  for (size_t r = 0; r < kRows; ++r) {
    const __m512* row = x + r * kVectors;
    const float added =
        _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(_mm512_add_ps(row[0], row[1]), row[2]), row[3]));
    shrink[r] = 1.0f;  // usual once the largest scores are seen
    if (max[r] != after[r])
      shrink[r] = _mm512_cvtss_f32(exp(_mm512_set1_ps(max[r] - after[r])));  // 0 the first time
    total[r] = __builtin_fmaf(total[r], shrink[r], added);  // the same however many rows there are
    max[r] = after[r];
  }
}

}  // namespace

void softmax_step(float* scores, const float* scales, const SeenKeys* seen, size_t rows, float* max,
                  float* total, float* shrink) {
  size_t i = 0;
  const auto step = [&]<size_t kRows>() {
    softmax_rows<kRows>(scores + i * kKeyTile, scales, seen + i, max + i, total + i, shrink + i);
    i += kRows;
  };
  while (i + 2 <= rows) step.template operator()<2>();
  if (i < rows) step.template operator()<1>();
}

}  // namespace allmem::avx512vnni
