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

// eˣ as in avx2_math.h, within 1 ulp; the power of two is one instruction, gradual underflow included.
[[maybe_unused]] inline __m512 exp(__m512 x) {
  // min and max return their second operand when one is NaN.
  x = _mm512_max_ps(_mm512_set1_ps(-104.0f), _mm512_min_ps(_mm512_set1_ps(89.0f), x));
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)),
                                        _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693145751953125f), x);
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(1.42860682030941723e-6f), r);
  __m512 p = _mm512_set1_ps(1.0f / 5040);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 720));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 120));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 24));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 6));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.5f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(p, n);
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
