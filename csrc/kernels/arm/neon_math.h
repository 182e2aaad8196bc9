// What a vector is with NEON (simd/vector.h), and more helpers of the NEON kernels.
//
// Everything has internal linkage, so that a file compiled for more than the baseline keeps its copy to
// itself.
#pragma once

#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

#include "kernels/kernels.h"

namespace allmem::simd {
namespace {

using Vector = float32x4_t;
constexpr size_t kLanes = 4;

inline Vector load(const float* x) { return vld1q_f32(x); }
inline void store(float* y, Vector v) { vst1q_f32(y, v); }

// The first `count` floats from x on, kLanes at most, then zeros; and back.
inline Vector load_first(const float* x, size_t count) {
  if (count >= kLanes) return load(x);
  float lanes[kLanes] = {};
  for (size_t i = 0; i < count; ++i) lanes[i] = x[i];
  return load(lanes);
}

inline void store_first(float* y, size_t count, Vector v) {
  if (count >= kLanes) return store(y, v);
  float lanes[kLanes];
  store(lanes, v);
  for (size_t i = 0; i < count; ++i) y[i] = lanes[i];
}

// kLanes codes of 8 bits.
inline Vector load_codes(const int8_t* codes) {
  int32_t lanes;
  __builtin_memcpy(&lanes, codes, sizeof lanes);
  const int16x8_t wide = vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(lanes)));
  return vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide)));
}

inline size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

inline Vector broadcast(float x) { return vdupq_n_f32(x); }
inline float first(Vector v) { return vgetq_lane_f32(v, 0); }

// Where one is NaN: NaN.
inline Vector max(Vector a, Vector b) { return vmaxq_f32(a, b); }
inline Vector min(Vector a, Vector b) { return vminq_f32(a, b); }

// a b + c and c - a b, rounded once.
inline Vector add_product(Vector a, Vector b, Vector c) { return vfmaq_f32(c, a, b); }
inline Vector subtract_product(Vector a, Vector b, Vector c) { return vfmsq_f32(c, a, b); }

inline Vector square_root(Vector v) { return vsqrtq_f32(v); }
inline Vector nearest(Vector v) { return vrndnq_f32(v); }

// p 2ⁿ, in two factors: n reaches 128 and -150, which one exponent field does not hold.
inline Vector times_power_of_two(Vector p, Vector n) {
  const int32x4_t power = vcvtq_s32_f32(n), half = vshrq_n_s32(power, 1), bias = vdupq_n_s32(127);
  const int32x4_t one = vshlq_n_s32(vaddq_s32(half, bias), 23);
  const int32x4_t other = vshlq_n_s32(vaddq_s32(vsubq_s32(power, half), bias), 23);
  return p * vreinterpretq_f32_s32(one) * vreinterpretq_f32_s32(other);
}

// The sum and the largest of all lanes.
inline float sum(Vector v) { return vaddvq_f32(v); }
inline float largest(Vector v) { return vmaxvq_f32(v); }

}  // namespace
}  // namespace allmem::simd

namespace allmem::neon {
namespace {

using simd::kLanes, simd::load_first, simd::smaller, simd::store_first;

[[maybe_unused]] inline float float_of(uint16_t half) {
  return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(half))), 0);
}

// Scale number i of a matrix.
[[maybe_unused]] inline float scale_at(const NBitsMatrix& w, size_t i) {
  return w.half_scales == nullptr ? w.scales[i] : float_of(w.half_scales[i]);
}

// The sums of four vectors.
inline float32x4_t horizontal_sums(float32x4_t a, float32x4_t b, float32x4_t c, float32x4_t d) {
  return vpaddq_f32(vpaddq_f32(a, b), vpaddq_f32(c, d));
}
inline int32x4_t horizontal_sums(int32x4_t a, int32x4_t b, int32x4_t c, int32x4_t d) {
  return vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d));
}

}  // namespace
}  // namespace allmem::neon
