// Vector helpers of the AVX2 kernels: tails, sums, exp and the functions built on it.
//
// Everything has internal linkage, so that no AVX2 code escapes the file that includes it.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace allmem::avx2 {
namespace {

constexpr size_t kLanes = 8;

// All bits set in the first `count` lanes, count <= 8.
[[maybe_unused]] inline __m256i first_lanes(size_t count) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), lane);
}

// The first `count` <= kLanes floats from x on, then zeros.
[[maybe_unused]] inline __m256 load_first(const float* x, size_t count) {
  return count == kLanes ? _mm256_loadu_ps(x) : _mm256_maskload_ps(x, first_lanes(count));
}

// The other way. A masked store takes AMD's processors more than ten cycles, whatever the mask.
[[maybe_unused]] inline void store_first(float* y, size_t count, __m256 v) {
  if (count == kLanes) {
    _mm256_storeu_ps(y, v);
  } else {
    _mm256_maskstore_ps(y, first_lanes(count), v);
  }
}

[[maybe_unused]] inline size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

[[maybe_unused]] inline float horizontal_sum(__m256 v) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

[[maybe_unused]] inline float horizontal_max(__m256 v) {
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

// The sums of four vectors.
[[maybe_unused]] inline __m128 horizontal_sums(__m256 a, __m256 b, __m256 c, __m256 d) {
  const __m256 s = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
  return _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
}

// In place: m[i] lane j <-> m[j] lane i.
[[maybe_unused, gnu::always_inline]] inline void transpose(__m256i m[8]) {
  __m256i a[8], b[8];
#pragma GCC unroll 4
  for (size_t i = 0; i < 8; i += 2) {
    a[i] = _mm256_unpacklo_epi32(m[i], m[i + 1]);
    a[i + 1] = _mm256_unpackhi_epi32(m[i], m[i + 1]);
  }
#pragma GCC unroll 2
  for (size_t i = 0; i < 8; i += 4) {
    b[i] = _mm256_unpacklo_epi64(a[i], a[i + 2]);
    b[i + 1] = _mm256_unpackhi_epi64(a[i], a[i + 2]);
    b[i + 2] = _mm256_unpacklo_epi64(a[i + 1], a[i + 3]);
    b[i + 3] = _mm256_unpackhi_epi64(a[i + 1], a[i + 3]);
  }
#pragma GCC unroll 4
  for (size_t i = 0; i < 4; ++i) {
    m[i] = _mm256_permute2x128_si256(b[i], b[i + 4], 0x20);
    m[i + 4] = _mm256_permute2x128_si256(b[i], b[i + 4], 0x31);
  }
}

// eˣ within 1 ulp (0.90 at worst over 80 million values); +inf above 88.73, gradual underflow to 0 below
// -87.4, NaN for NaN. x = n ln 2 + r with |r| <= ln(2)/2 (ln 2 in two parts, so that r is exact to its last
// bit), e^r by its Taylor polynomial of degree 7, whose first omitted term is 0.347^8/8! = 5e-9 < 2^-27; 2ⁿ
// in two factors, because n reaches 128 and -150, which one exponent field does not hold.
[[maybe_unused]] inline __m256 exp(__m256 x) {
  // min and max return their second operand when one is NaN.
  x = _mm256_max_ps(_mm256_set1_ps(-104.0f), _mm256_min_ps(_mm256_set1_ps(89.0f), x));
  const __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504f)),
                                   _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693145751953125f), x);
  r = _mm256_fnmadd_ps(n, _mm256_set1_ps(1.42860682030941723e-6f), r);
  __m256 p = _mm256_set1_ps(1.0f / 5040);
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 720));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 120));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 24));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 6));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.5f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
  const __m256i power = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(power, 1);
  const __m256i bias = _mm256_set1_epi32(127);
  const __m256i first = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
  const __m256i second = _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(power, half), bias), 23);
  return _mm256_mul_ps(_mm256_mul_ps(p, _mm256_castsi256_ps(first)), _mm256_castsi256_ps(second));
}

[[maybe_unused]] inline __m256 negative(__m256 x) { return _mm256_xor_ps(x, _mm256_set1_ps(-0.0f)); }

[[maybe_unused]] inline __m256 sigmoid(__m256 x) {
  const __m256 one = _mm256_set1_ps(1.0f);
  return _mm256_div_ps(one, _mm256_add_ps(one, exp(negative(x))));
}

[[maybe_unused]] inline __m256 silu(__m256 x) {
  return _mm256_div_ps(x, _mm256_add_ps(_mm256_set1_ps(1.0f), exp(negative(x))));
}

// log(1 + eˣ) = max(x, 0) + log(1 + y), y = e^-|x| <= 1. With s = y/(2 + y) <= 1/3, log(1 + y) = 2 atanh(s)
// = 2s (1 + s²/3 + s⁴/5 + ...), cut where s^16/17 = 1.4e-9: full relative precision also as y goes to 0.
[[maybe_unused]] inline __m256 softplus(__m256 x) {
  const __m256 y = exp(_mm256_or_ps(x, _mm256_set1_ps(-0.0f)));
  const __m256 s = _mm256_div_ps(y, _mm256_add_ps(_mm256_set1_ps(2.0f), y)), s2 = _mm256_mul_ps(s, s);
  __m256 p = _mm256_set1_ps(2.0f / 15);
  p = _mm256_fmadd_ps(p, s2, _mm256_set1_ps(2.0f / 13));
  p = _mm256_fmadd_ps(p, s2, _mm256_set1_ps(2.0f / 11));
  p = _mm256_fmadd_ps(p, s2, _mm256_set1_ps(2.0f / 9));
  p = _mm256_fmadd_ps(p, s2, _mm256_set1_ps(2.0f / 7));
  p = _mm256_fmadd_ps(p, s2, _mm256_set1_ps(2.0f / 5));
  p = _mm256_fmadd_ps(p, s2, _mm256_set1_ps(2.0f / 3));
  p = _mm256_fmadd_ps(p, s2, _mm256_set1_ps(2.0f));
  return _mm256_fmadd_ps(p, s, _mm256_max_ps(_mm256_setzero_ps(), x));
}

// y[i] = f(x[i]...) over n values, a vector at a time.
template <typename F>
[[maybe_unused]] inline void for_each(const float* x, float* y, size_t n, F f) {
  for (size_t i = 0; i < n; i += kLanes) {
    const size_t count = smaller(kLanes, n - i);
    store_first(y + i, count, f(load_first(x + i, count)));
  }
}

template <typename F>
[[maybe_unused]] inline void for_each(const float* a, const float* b, float* y, size_t n, F f) {
  for (size_t i = 0; i < n; i += kLanes) {
    const size_t count = smaller(kLanes, n - i);
    store_first(y + i, count, f(load_first(a + i, count), load_first(b + i, count)));
  }
}

[[maybe_unused]] inline void fill(float* y, size_t n, float value) {
  for (size_t i = 0; i < n; ++i) y[i] = value;
}

[[maybe_unused]] inline void copy(const float* x, float* y, size_t n) {
  for (size_t i = 0; i < n; ++i) y[i] = x[i];
}

}  // namespace
}  // namespace allmem::avx2
