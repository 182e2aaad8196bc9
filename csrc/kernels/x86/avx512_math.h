// Vector helpers of the AVX-512 kernels: tails and exp.
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

}  // namespace
}  // namespace allmem::avx512vnni
