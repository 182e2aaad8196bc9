// Products of float32 matrices in AMX's tile registers: a factor is the sum of two bfloat16, x = high + low
// up to 2^-18 of it, and a product is high high' + high low' + low high', exact to 2^-16. Sums are float32. A
// tile register holds 16 rows of 32 bfloat16.
//
// Everything has internal linkage, so that no AMX code escapes the file that includes it.
#pragma once

#include "kernels/x86/amx_tiles.h"
#include "kernels/x86/avx512_math.h"

namespace allmem::amx {
namespace {

using avx512vnni::first_lanes;
using avx512vnni::kLanes;

constexpr size_t kSide = 32;  // of the blocks that are multiplied: two tiles of each factor, four of sums

// 512 floats of a factor: of a left one 16 rows by 32 along the sum, of a right one 32 along the sum by 16
// columns. A dword holds two neighbours in a sum, which here are those 16 apart, as this takes no shuffles:
// dword j of a left row is (x[r, j], x[r, j + 16]), dword n of a right one (x[j, n], x[j + 16, n]).
struct Split {
  __m512i high[kLanes], low[kLanes];
};

// 32 by 32 floats.
struct Block {
  alignas(64) float of[kSide][kSide];
};

// a and b, rounded to bfloat16, as the lower and upper halves of dwords. What is lost of a NaN's payload
// stays NaN in the low part.
inline void split(__m512 a, __m512 b, __m512i* high, __m512i* low) {
  const __m512i half = _mm512_set1_epi32(0x8000), upper = _mm512_set1_epi32(-0x10000);
  const auto rounded = [&](__m512 x) { return _mm512_add_epi32(_mm512_castps_si512(x), half); };
  const auto rest = [&](__m512 x, __m512i high) { return _mm512_sub_ps(x, _mm512_castsi512_ps(high)); };
  const auto halves = [&](__m512i a, __m512i b) {  // of b the upper half, whatever the lower one is
    return _mm512_ternarylogic_epi32(_mm512_srli_epi32(a, 16), b, upper, 0xF8);  // a | (b & upper)
  };
  const __m512i a_high = _mm512_and_si512(rounded(a), upper), b_high = _mm512_and_si512(rounded(b), upper);
  *high = _mm512_or_si512(_mm512_srli_epi32(a_high, 16), b_high);
  *low = halves(rounded(rest(a, a_high)), rounded(rest(b, b_high)));
}

// A tile of a left factor from x [rows, cols], the first 16 by 32 of it; what is not there is 0.
inline void split_rows(const float* x, size_t stride, size_t rows, size_t cols, Split* to) {
  const __mmask16 first = first_lanes(cols), second = first_lanes(cols > kLanes ? cols - kLanes : 0);
  for (size_t r = 0; r < kLanes; ++r) {
    const bool there = r < rows;
    split(_mm512_maskz_loadu_ps(there ? first : 0, x + r * stride),
          _mm512_maskz_loadu_ps(there ? second : 0, x + r * stride + kLanes), &to->high[r], &to->low[r]);
  }
}

// A tile of a right factor from x [rows, cols], the first 32 by 16 of it; what is not there is 0.
inline void split_columns(const float* x, size_t stride, size_t rows, size_t cols, Split* to) {
  const __mmask16 lanes = first_lanes(cols);
  for (size_t j = 0; j < kLanes; ++j) {
    split(_mm512_maskz_loadu_ps(j < rows ? lanes : 0, x + j * stride),
          _mm512_maskz_loadu_ps(j + kLanes < rows ? lanes : 0, x + (j + kLanes) * stride), &to->high[j],
          &to->low[j]);
  }
}

// From a tile of a left factor to one of a right factor, which is its transpose, and back.
inline void transpose(Split* split) {
  avx512vnni::transpose(split->high);
  avx512vnni::transpose(split->low);
}

// A factor's tiles: of 16 rows or columns i and of step s, 32 along the sum, at i * steps + s.
struct Factor {
  Split* tiles;
  size_t steps;

  Split* tile(size_t i, size_t s) const { return tiles + i * steps + s; }
};

// Whether a product starts from 0 or from what it is written to.
enum class Start { kZero, kAdd };

// c [32, 32] (+)= the tiles a, a + a.steps times b, b + b.steps, which have equally many steps.
template <Start kStart>
inline void multiply(const Split* a, const Split* b, size_t steps, float* c, size_t c_stride) {
  const size_t stride = c_stride * sizeof(float);
  float* lower = c + kLanes * c_stride;
  const auto add_products = [] {  // of the tiles in 4 and 5 with those in 6 and 7
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  };
  finish_stores(c);
  if constexpr (kStart == Start::kAdd) {
    _tile_loadd(0, c, stride);
    _tile_loadd(1, c + kLanes, stride);
    _tile_loadd(2, lower, stride);
    _tile_loadd(3, lower + kLanes, stride);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  for (size_t s = 0; s < steps; ++s) {
    _tile_loadd(4, a[s].high, kTileBytes);
    _tile_loadd(5, a[steps + s].high, kTileBytes);
    _tile_loadd(6, b[s].low, kTileBytes);
    _tile_loadd(7, b[steps + s].low, kTileBytes);
    add_products();
    _tile_loadd(6, b[s].high, kTileBytes);
    _tile_loadd(7, b[steps + s].high, kTileBytes);
    add_products();
    _tile_loadd(4, a[s].low, kTileBytes);
    _tile_loadd(5, a[steps + s].low, kTileBytes);
    add_products();
  }
  _tile_stored(0, c, stride);
  _tile_stored(1, c + kLanes, stride);
  _tile_stored(2, lower, stride);
  _tile_stored(3, lower + kLanes, stride);
  finish_stores(c);
}

}  // namespace
}  // namespace allmem::amx
