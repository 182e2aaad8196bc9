// Linear layers with 4- or 8-bit weights and 8-bit activations in 32-byte registers: the code that AVX2 and
// AVX-VNNI share, which differ in how they multiply bytes (`Dot`). Structure as in linear_avx512vnni.cpp; a
// tile of 16 rows takes two registers.
//
// Everything has internal linkage, so that no code escapes the instruction set of the file that includes it.
#pragma once

#include "kernels/x86/avx2_math.h"

namespace allmem::avx2 {
namespace {

constexpr size_t kTileRows = 16, kTileGroups = 8;  // 512 columns: the tile takes 8 KiB
constexpr size_t kFewTokens = 4;                   // below it a tile does not repay being unpacked
constexpr size_t kDwords = kQ8Group / 4;           // of a group of codes
constexpr size_t kStreams = 4, kAhead = 768;       // as in linear_q8_zmm.h

inline __m256i load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }

// A group of 64 weights, one a byte, in the order of Q8Rows.
struct GroupCodes {
  __m256i low, high;
};
template <typename Dot, unsigned kBits>
[[gnu::always_inline]] inline GroupCodes group_codes(const uint8_t* packed) {
  if constexpr (kBits == 8) {
    return {Dot::template prepare<8>(load(packed)), Dot::template prepare<8>(load(packed + 32))};
  } else {
    const __m256i pairs = load(packed), nibble = _mm256_set1_epi8(0xF);
    return {_mm256_and_si256(pairs, nibble), _mm256_and_si256(_mm256_srli_epi16(pairs, 4), nibble)};
  }
}

inline float scale_of(const NBitsMatrix& w, size_t n, size_t group) {
  return w.scales[n * (w.cols / w.block) + group * kQ8Group / w.block];
}

// y[n + r step] for one token, r < rows <= 4.
template <typename Dot, unsigned kBits>
inline void rows_by_token(const Q8Rows& x, const NBitsMatrix& w, const float* bias, float* y, size_t n,
                          size_t step, size_t rows) {
  constexpr size_t kGroupBytes = kQ8Group * kBits / 8, kRows = kStreams;
  const size_t groups = w.cols / kQ8Group, row_bytes = groups * kGroupBytes;
  const unsigned log2 = static_cast<unsigned>(__builtin_ctzll(w.block / kQ8Group));
  const auto row = [&](size_t r) { return n + smaller(r, rows - 1) * step; };
  alignas(16) float values[kRows];  // a lane for each row
  const uint8_t* packed[kRows];
  const float* scales[kRows];
#pragma GCC unroll 4
  for (size_t r = 0; r < kRows; ++r) {
    packed[r] = w.packed + row(r) * row_bytes;
    scales[r] = w.scales + row(r) * (groups >> log2);
    values[r] = bias ? bias[row(r)] : 0.0f;
  }
  __m128 sums = _mm_load_ps(values);
  for (size_t g = 0; g < groups; ++g) {
    const __m256i low = load(x.codes + g * kQ8Group), high = load(x.codes + g * kQ8Group + 32);
    __m256i products[kRows];
#pragma GCC unroll 4
    for (size_t r = 0; r < kRows; ++r) {
      const uint8_t* group = packed[r] + g * kGroupBytes;
      _mm_prefetch(reinterpret_cast<const char*>(group + kAhead), _MM_HINT_T0);
      const GroupCodes codes = group_codes<Dot, kBits>(group);
      products[r] = Dot::template pair<kBits>(codes.low, low, codes.high, high);
    }
    const __m256i halves = _mm256_hadd_epi32(_mm256_hadd_epi32(products[0], products[1]),
                                             _mm256_hadd_epi32(products[2], products[3]));
    const __m128i totals =
        _mm_add_epi32(_mm_add_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1)),
                      _mm_set1_epi32(Dot::template start<kBits>(x.sums[g])));
    const size_t block = g >> log2;
    const __m128 w_scales =
        _mm_setr_ps(scales[0][block], scales[1][block], scales[2][block], scales[3][block]);
    sums = _mm_fmadd_ps(_mm_cvtepi32_ps(totals), _mm_mul_ps(w_scales, _mm_set1_ps(x.scales[g])), sums);
  }
  _mm_store_ps(values, sums);
  for (size_t r = 0; r < rows; ++r) y[row(r)] = values[r];
}

template <typename Dot, unsigned kBits>
inline void product_of_token(const Q8Rows& x, const NBitsMatrix& w, const float* bias, float* y,
                             size_t n_begin, size_t n_end) {
  const size_t step = (n_end - n_begin) / kStreams, left = n_begin + kStreams * step;
  for (size_t n = n_begin; n < n_begin + step; ++n)
    rows_by_token<Dot, kBits>(x, w, bias, y, n, step, kStreams);
  if (left < n_end) rows_by_token<Dot, kBits>(x, w, bias, y, left, 1, n_end - left);
}

// 16 rows of up to kTileGroups groups. codes[g][j][half], lane r: codes 4j..4j+3 of group g of row 8 half +
// r.
struct Tile {
  alignas(32) __m256i codes[kTileGroups][kDwords][2];
  alignas(32) float scales[kTileGroups][kTileRows];
};

// In place: m[i] lane j <-> m[j] lane i.
inline void transpose(__m256i m[8]) {
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

template <typename Dot, unsigned kBits>
inline void unpack(const NBitsMatrix& w, size_t n, size_t rows, size_t group, size_t count, Tile& tile) {
  constexpr size_t kGroupBytes = kQ8Group * kBits / 8;
  const size_t row_bytes = w.cols / kQ8Group * kGroupBytes;
  for (size_t g = 0; g < count; ++g) {
    for (size_t half = 0; half < 2; ++half) {
      __m256i low[8], high[8];
#pragma GCC unroll 8
      for (size_t r = 0; r < 8; ++r) {
        const size_t row = n + smaller(8 * half + r, rows - 1);
        const auto codes = group_codes<Dot, kBits>(w.packed + row * row_bytes + (group + g) * kGroupBytes);
        low[r] = codes.low;
        high[r] = codes.high;
      }
      transpose(low);
      transpose(high);
#pragma GCC unroll 8
      for (size_t j = 0; j < 8; ++j) {
        tile.codes[g][j][half] = low[j];
        tile.codes[g][j + 8][half] = high[j];
      }
    }
    for (size_t r = 0; r < kTileRows; ++r)
      tile.scales[g][r] = scale_of(w, n + smaller(r, rows - 1), group + g);
  }
}

// sums[i] += the tile's product with token t + i.
template <typename Dot, unsigned kBits, size_t M>
inline void multiply(const Tile& tile, const Q8Rows& x, size_t t, size_t K, size_t group, size_t count,
                     float (*sums)[kTileRows]) {
  const size_t groups = K / kQ8Group;
  for (size_t g = 0; g < count; ++g) {
    const int8_t* codes = x.codes + t * K + (group + g) * kQ8Group;
    const size_t scale = t * groups + group + g;
    typename Dot::template Products<kBits> products[M][2];
#pragma GCC unroll 4
    for (size_t i = 0; i < M; ++i) {
      products[i][0].start(x.sums[scale + i * groups]);
      products[i][1] = products[i][0];
    }
#pragma GCC unroll 16
    for (size_t j = 0; j < kDwords; ++j) {
#pragma GCC unroll 4
      for (size_t i = 0; i < M; ++i) {
        int four;
        __builtin_memcpy(&four, codes + i * K + 4 * j, sizeof(four));
        const __m256i xs = _mm256_set1_epi32(four);
        products[i][0].add(tile.codes[g][j][0], xs, j);
        products[i][1].add(tile.codes[g][j][1], xs, j);
      }
    }
#pragma GCC unroll 4
    for (size_t i = 0; i < M; ++i) {
      const __m256 x_scale = _mm256_set1_ps(x.scales[scale + i * groups]);
#pragma GCC unroll 2
      for (size_t half = 0; half < 2; ++half) {
        float* sum = sums[i] + 8 * half;
        const __m256 factor = _mm256_mul_ps(_mm256_load_ps(tile.scales[g] + 8 * half), x_scale);
        const __m256 product = _mm256_cvtepi32_ps(products[i][half].total());
        _mm256_store_ps(sum, _mm256_fmadd_ps(product, factor, _mm256_load_ps(sum)));
      }
    }
  }
}

template <typename Dot, unsigned kBits>
inline void product_of_block(const Q8Rows& x, const NBitsMatrix& w, float* y, size_t T, size_t n_begin,
                             size_t n_end) {
  const size_t groups = w.cols / kQ8Group;
  Tile tile;
  for (size_t n = n_begin; n < n_end; n += kTileRows) {
    const size_t rows = smaller(kTileRows, n_end - n);
    for (size_t g = 0; g < groups; g += kTileGroups) {
      const size_t count = smaller(kTileGroups, groups - g);
      unpack<Dot, kBits>(w, n, rows, g, count, tile);
      const auto tokens = [&]<size_t M>(size_t t) {
        alignas(32) float sums[M][kTileRows];
        for (size_t i = 0; i < M; ++i)
          for (size_t r = 0; r < kTileRows; ++r) sums[i][r] = r < rows ? y[(t + i) * w.rows + n + r] : 0;
        multiply<Dot, kBits, M>(tile, x, t, w.cols, g, count, sums);
        for (size_t i = 0; i < M; ++i)
          for (size_t r = 0; r < rows; ++r) y[(t + i) * w.rows + n + r] = sums[i][r];
      };
      size_t t = 0;
      for (; t + Dot::kTokens <= T; t += Dot::kTokens) tokens.template operator()<Dot::kTokens>(t);
      for (; t < T; ++t) tokens.template operator()<1>(t);
    }
  }
}

template <typename Dot>
inline void product(const Q8Rows& x, const NBitsMatrix& w, const float* bias, float* y, size_t T,
                    size_t n_begin, size_t n_end) {
  if (T < kFewTokens) {
    const size_t groups = w.cols / kQ8Group;
    for (size_t t = 0; t < T; ++t) {
      const Q8Rows row{x.codes + t * w.cols, x.scales + t * groups, x.sums + t * groups};
      (w.bits == 4 ? product_of_token<Dot, 4> : product_of_token<Dot, 8>)(row, w, bias, y + t * w.rows,
                                                                          n_begin, n_end);
    }
    return;
  }
  for (size_t t = 0; t < T; ++t)
    for (size_t n = n_begin; n < n_end; ++n) y[t * w.rows + n] = bias ? bias[n] : 0.0f;
  (w.bits == 4 ? product_of_block<Dot, 4> : product_of_block<Dot, 8>)(x, w, y, T, n_begin, n_end);
}

}  // namespace
}  // namespace allmem::avx2
