// What a vector is with AVX2 (simd/vector.h), and more helpers of the AVX2 kernels.
//
// Everything has internal linkage, so that no AVX2 code escapes the file that includes it.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/kernels.h"

namespace allmem::simd {
namespace {

using Vector = __m256;
constexpr size_t kLanes = 8;

// All bits set in the first `count` lanes, in all of them from 8 on.
inline __m256i first_lanes(size_t count) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), lane);
}

inline Vector load(const float* x) { return _mm256_loadu_ps(x); }
inline void store(float* y, Vector v) { _mm256_storeu_ps(y, v); }

// The first `count` floats from x on, kLanes at most, then zeros.
inline Vector load_first(const float* x, size_t count) {
  return count >= kLanes ? load(x) : _mm256_maskload_ps(x, first_lanes(count));
}

// The other way. A masked store takes AMD's processors more than ten cycles, whatever the mask.
inline void store_first(float* y, size_t count, Vector v) {
  if (count >= kLanes) {
    store(y, v);
  } else {
    _mm256_maskstore_ps(y, first_lanes(count), v);
  }
}

// kLanes codes of 8 bits.
inline Vector load_codes(const int8_t* codes) {
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes))));
}

inline size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

inline Vector broadcast(float x) { return _mm256_set1_ps(x); }
inline float first(Vector v) { return _mm256_cvtss_f32(v); }

// Where one is NaN: b.
inline Vector max(Vector a, Vector b) { return _mm256_max_ps(a, b); }
inline Vector min(Vector a, Vector b) { return _mm256_min_ps(a, b); }

// a b + c and c - a b, rounded once.
inline Vector add_product(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(a, b, c); }
inline Vector subtract_product(Vector a, Vector b, Vector c) { return _mm256_fnmadd_ps(a, b, c); }

inline Vector square_root(Vector v) { return _mm256_sqrt_ps(v); }
inline Vector nearest(Vector v) { return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

// p 2ⁿ, in two factors: n reaches 128 and -150, which one exponent field does not hold.
inline Vector times_power_of_two(Vector p, Vector n) {
  const __m256i power = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(power, 1);
  const __m256i bias = _mm256_set1_epi32(127);
  const __m256i one = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
  const __m256i other = _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(power, half), bias), 23);
  return p * _mm256_castsi256_ps(one) * _mm256_castsi256_ps(other);
}

// The sum and the largest of all lanes.
inline float sum(Vector v) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

inline float largest(Vector v) {
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

}  // namespace
}  // namespace allmem::simd

namespace allmem::avx2 {
namespace {

using simd::first_lanes, simd::kLanes, simd::load_first, simd::smaller, simd::store_first;

// The sums of four vectors.
inline __m128 horizontal_sums(__m256 a, __m256 b, __m256 c, __m256 d) {
  const __m256 s = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
  return _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
}

// In place: m[i] lane j <-> m[j] lane i.
[[gnu::always_inline]] inline void transpose(__m256i m[8]) {
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

}  // namespace
}  // namespace allmem::avx2
