// Vector helpers of the AVX-512 kernels: tails, exp and transposing.
//
// Everything has internal linkage, so that no AVX-512 code escapes the file that includes it.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace allmem::avx512vnni {
namespace {

constexpr size_t kLanes = 16;

[[maybe_unused]] inline size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

// The first `count` lanes, all of them from 16 on.
[[maybe_unused]] inline __mmask16 first_lanes(size_t count) {
  return static_cast<__mmask16>((1u << smaller(count, kLanes)) - 1);
}

// eˣ of each, as in simd/vector.h, within 1 ulp; the power of two is one instruction, gradual underflow
// included. Step by step for all of them, so that the latencies of one are hidden behind those of the others.
template <size_t kCount>
[[gnu::always_inline]] inline void exp_each(__m512 (&x)[kCount]) {
  const auto each = [](auto step) {
#pragma GCC unroll 16
    for (size_t i = 0; i < kCount; ++i) step(i);
  };
  __m512 n[kCount], p[kCount];
  const auto next = [&](float coefficient) {
    each([&](size_t i) { p[i] = _mm512_fmadd_ps(p[i], x[i], _mm512_set1_ps(coefficient)); });
  };
  // min and max return their second operand when one is NaN.
  each([&](size_t i) { x[i] = _mm512_min_ps(_mm512_set1_ps(89.0f), x[i]); });
  each([&](size_t i) { x[i] = _mm512_max_ps(_mm512_set1_ps(-104.0f), x[i]); });
  each([&](size_t i) {
    n[i] = _mm512_roundscale_ps(_mm512_mul_ps(x[i], _mm512_set1_ps(1.44269504f)),
                                _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  });
  each([&](size_t i) { x[i] = _mm512_fnmadd_ps(n[i], _mm512_set1_ps(0.693145751953125f), x[i]); });
  each([&](size_t i) { x[i] = _mm512_fnmadd_ps(n[i], _mm512_set1_ps(1.42860682030941723e-6f), x[i]); });
  each([&](size_t i) { p[i] = _mm512_set1_ps(1.0f / 5040); });
  next(1.0f / 720);
  next(1.0f / 120);
  next(1.0f / 24);
  next(1.0f / 6);
  next(0.5f);
  next(1.0f);
  next(1.0f);
  each([&](size_t i) { x[i] = _mm512_scalef_ps(p[i], n[i]); });
}

[[maybe_unused]] inline __m512 exp(__m512 x) {
  __m512 one[] = {x};
  exp_each(one);
  return one[0];
}

// In place: m[i] lane j <-> m[j] lane i.
[[maybe_unused]] inline void transpose(__m512i m[16]) {
  __m512i t[16];
#pragma GCC unroll 8
  for (size_t i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(m[i], m[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(m[i], m[i + 1]);
  }
#pragma GCC unroll 4
  for (size_t i = 0; i < 16; i += 4) {
    m[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    m[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    m[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    m[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
#pragma GCC unroll 4
  for (size_t i = 0; i < 4; ++i) {
    const __m512i a = _mm512_shuffle_i32x4(m[i], m[i + 4], 0x88),
                  b = _mm512_shuffle_i32x4(m[i], m[i + 4], 0xDD);
    const __m512i c = _mm512_shuffle_i32x4(m[i + 8], m[i + 12], 0x88),
                  d = _mm512_shuffle_i32x4(m[i + 8], m[i + 12], 0xDD);
    m[i] = _mm512_shuffle_i32x4(a, c, 0x88);
    m[i + 8] = _mm512_shuffle_i32x4(a, c, 0xDD);
    m[i + 4] = _mm512_shuffle_i32x4(b, d, 0x88);
    m[i + 12] = _mm512_shuffle_i32x4(b, d, 0xDD);
  }
}

}  // namespace
}  // namespace allmem::avx512vnni
