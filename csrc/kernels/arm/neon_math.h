// Vector helpers of the NEON kernels: tails, sums, exp and the functions built on it.
//
// Everything has internal linkage, so that a file compiled for more than the baseline keeps its copy to
// itself.
#pragma once

#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

#include "kernels/kernels.h"

namespace allmem::neon {
namespace {

constexpr size_t kLanes = 4;

// Scale number i of a matrix.
[[maybe_unused]] inline float scale_at(const NBitsMatrix& w, size_t i) {
  if (w.half_scales == nullptr) return w.scales[i];
  return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vld1_dup_u16(w.half_scales + i))), 0);
}

inline size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

// The first `count` <= 4 lanes from memory, the others 0; and back.
inline float32x4_t load_first(const float* x, size_t count) {
  if (count >= kLanes) return vld1q_f32(x);
  float lanes[kLanes] = {};
  for (size_t i = 0; i < count; ++i) lanes[i] = x[i];
  return vld1q_f32(lanes);
}

inline void store_first(float* y, size_t count, float32x4_t v) {
  if (count >= kLanes) return vst1q_f32(y, v);
  float lanes[kLanes];
  vst1q_f32(lanes, v);
  for (size_t i = 0; i < count; ++i) y[i] = lanes[i];
}

// The sums of four vectors.
inline float32x4_t horizontal_sums(float32x4_t a, float32x4_t b, float32x4_t c, float32x4_t d) {
  return vpaddq_f32(vpaddq_f32(a, b), vpaddq_f32(c, d));
}
inline int32x4_t horizontal_sums(int32x4_t a, int32x4_t b, int32x4_t c, int32x4_t d) {
  return vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d));
}

// eˣ within 1 ulp; +inf above 88.73, gradual underflow to 0 below -87.4, NaN for NaN. The method and its
// error are those of kernels/x86/avx2_math.h. fmin and fmax of NEON keep a NaN.
inline float32x4_t exp(float32x4_t x) {
  x = vmaxq_f32(vdupq_n_f32(-104.0f), vminq_f32(vdupq_n_f32(89.0f), x));
  const float32x4_t n = vrndnq_f32(vmulq_n_f32(x, 1.44269504f));
  float32x4_t r = vfmsq_n_f32(x, n, 0.693145751953125f);
  r = vfmsq_n_f32(r, n, 1.42860682030941723e-6f);
  float32x4_t p = vdupq_n_f32(1.0f / 5040);
  p = vfmaq_f32(vdupq_n_f32(1.0f / 720), p, r);
  p = vfmaq_f32(vdupq_n_f32(1.0f / 120), p, r);
  p = vfmaq_f32(vdupq_n_f32(1.0f / 24), p, r);
  p = vfmaq_f32(vdupq_n_f32(1.0f / 6), p, r);
  p = vfmaq_f32(vdupq_n_f32(0.5f), p, r);
  p = vfmaq_f32(vdupq_n_f32(1.0f), p, r);
  p = vfmaq_f32(vdupq_n_f32(1.0f), p, r);
  const int32x4_t power = vcvtq_s32_f32(n), half = vshrq_n_s32(power, 1), bias = vdupq_n_s32(127);
  const int32x4_t first = vshlq_n_s32(vaddq_s32(half, bias), 23);
  const int32x4_t second = vshlq_n_s32(vaddq_s32(vsubq_s32(power, half), bias), 23);
  return vmulq_f32(vmulq_f32(p, vreinterpretq_f32_s32(first)), vreinterpretq_f32_s32(second));
}

inline float32x4_t sigmoid(float32x4_t x) {
  const float32x4_t one = vdupq_n_f32(1.0f);
  return vdivq_f32(one, vaddq_f32(one, exp(vnegq_f32(x))));
}

inline float32x4_t silu(float32x4_t x) {
  return vdivq_f32(x, vaddq_f32(vdupq_n_f32(1.0f), exp(vnegq_f32(x))));
}

// log(1 + eˣ), as in kernels/x86/avx2_math.h.
inline float32x4_t softplus(float32x4_t x) {
  const float32x4_t y = exp(vnegq_f32(vabsq_f32(x)));
  const float32x4_t s = vdivq_f32(y, vaddq_f32(vdupq_n_f32(2.0f), y)), s2 = vmulq_f32(s, s);
  float32x4_t p = vdupq_n_f32(2.0f / 15);
  p = vfmaq_f32(vdupq_n_f32(2.0f / 13), p, s2);
  p = vfmaq_f32(vdupq_n_f32(2.0f / 11), p, s2);
  p = vfmaq_f32(vdupq_n_f32(2.0f / 9), p, s2);
  p = vfmaq_f32(vdupq_n_f32(2.0f / 7), p, s2);
  p = vfmaq_f32(vdupq_n_f32(2.0f / 5), p, s2);
  p = vfmaq_f32(vdupq_n_f32(2.0f / 3), p, s2);
  p = vfmaq_f32(vdupq_n_f32(2.0f), p, s2);
  return vfmaq_f32(vmaxq_f32(vdupq_n_f32(0.0f), x), p, s);
}

// y[i] = f(x[i]...) over n values: whole vectors, then the first lanes of one more.
template <typename F>
inline void for_each(const float* x, float* y, size_t n, F f) {
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) vst1q_f32(y + i, f(vld1q_f32(x + i)));
  if (i < n) store_first(y + i, n - i, f(load_first(x + i, n - i)));
}

template <typename F>
inline void for_each(const float* a, const float* b, float* y, size_t n, F f) {
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) vst1q_f32(y + i, f(vld1q_f32(a + i), vld1q_f32(b + i)));
  if (i < n) store_first(y + i, n - i, f(load_first(a + i, n - i), load_first(b + i, n - i)));
}

inline void fill(float* y, size_t n, float value) {
  for (size_t i = 0; i < n; ++i) y[i] = value;
}

inline void copy(const float* x, float* y, size_t n) {
  for (size_t i = 0; i < n; ++i) y[i] = x[i];
}

}  // namespace
}  // namespace allmem::neon
