// Linear layers with 4- or 8-bit weights and 8-bit activations in 64-byte registers: the code that AVX-512
// VNNI and AMX share, which differ in how they multiply a block of tokens (`Block`).
//
// One instruction multiplies 64 unsigned by 64 signed bytes and adds them up in fours. Few tokens are bound
// by reading the weights: four rows at a time share the activations. A block of tokens is bound by
// arithmetic: a tile of 32 rows is unpacked once into the first-level cache, transposed so that every lane is
// a row.
//
// Everything has internal linkage, so that no code escapes the instruction set of the file that includes it.
#pragma once

#include "kernels/kernels.h"
#include "kernels/x86/avx512_math.h"

namespace allmem::avx512vnni {
namespace {

constexpr size_t kTileRows = 2 * kLanes, kTileGroups = 8;  // by 512 columns: 16 KiB of the first-level cache
constexpr size_t kAhead = 1024;                            // bytes that are fetched ahead
constexpr size_t kAheadOfShort = 3072;
constexpr size_t kStreams = 4;    // places that a matrix is read from at a time, for the same reason
constexpr size_t kFewTokens = 4;  // below it a tile does not repay being unpacked

// The codes of a group of 64 weights, one a byte, in the order of Q8Rows.
template <unsigned kBits>
[[gnu::always_inline]] inline __m512i group_codes(const uint8_t* packed) {
  if constexpr (kBits == 8) return _mm512_loadu_si512(packed);
  const __m512i twice = _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(packed)));
  const __m512i shifts = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi64x(4), 1);
  return _mm512_and_si512(_mm512_srlv_epi64(twice, shifts), _mm512_set1_epi8(0xF));
}

// The scales of the groups [group, group + count) of row n, count <= 16; 0 in the other lanes.
[[maybe_unused]] inline __m512 group_scales(const NBitsMatrix& w, size_t n, size_t group, size_t count) {
  const float* row = w.scales + n * (w.cols / w.block);
  const __mmask16 there = first_lanes(count);
  if (w.block == kQ8Group) return _mm512_maskz_loadu_ps(there, row + group);
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i first = _mm512_add_epi32(lane, _mm512_set1_epi32(static_cast<int>(group)));
  const int log2 = __builtin_ctzll(w.block / kQ8Group);
  const __m512i index = _mm512_srl_epi32(first, _mm_cvtsi32_si128(log2));
  return _mm512_mask_i32gather_ps(_mm512_setzero_ps(), there, index, row, sizeof(float));
}

// Into the second-level cache.
[[maybe_unused]] inline void fetch(const uint8_t* codes) {
  _mm_prefetch(reinterpret_cast<const char*>(codes), _MM_HINT_T1);
}

// --- Few tokens

// What a group's products start from: the zero point's share of the sum, in one lane.
[[maybe_unused]] inline __m512i start_of(const Q8Rows& x, size_t group) {
  return _mm512_zextsi128_si512(_mm_cvtsi32_si128(x.sums[group]));
}

// y[n + r step] for one token, r < R.
template <unsigned kBits, size_t R>
[[maybe_unused]] inline void rows_by_token(const Q8Rows& x, const NBitsMatrix& w, const float* bias, float* y,
                                           size_t n, size_t step) {
  const size_t groups = w.cols / kQ8Group, stride = step * groups * kQ8Group * kBits / 8;
  const uint8_t* packed = w.packed + n * groups * kQ8Group * kBits / 8;
  __m512 sums[R];
#pragma GCC unroll 8
  for (size_t r = 0; r < R; ++r) sums[r] = _mm512_setzero_ps();
  for (size_t g = 0; g < groups; g += kLanes) {
    const size_t count = smaller(kLanes, groups - g);
    const __m512 x_scales = _mm512_mul_ps(_mm512_maskz_loadu_ps(first_lanes(count), x.scales + g),
                                          _mm512_set1_ps(kBits == 4 ? 1.0f / 16 : 1.0f));
    __m512 factors[R];
#pragma GCC unroll 8
    for (size_t r = 0; r < R; ++r)
      factors[r] = _mm512_mul_ps(group_scales(w, n + r * step, g, count), x_scales);
    __m512i group = _mm512_setzero_si512();  // that a lane's products belong to
    if constexpr (kBits == 8) {
      for (size_t i = 0; i < count; ++i, packed += kQ8Group) {
        const __m512i codes = _mm512_loadu_si512(x.codes + (g + i) * kQ8Group), start = start_of(x, g + i);
#pragma GCC unroll 8
        for (size_t r = 0; r < R; ++r) {
          fetch(packed + r * stride + kAhead);
          const __m512i products = _mm512_dpbusd_epi32(start, _mm512_loadu_si512(packed + r * stride), codes);
          sums[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products), _mm512_permutexvar_ps(group, factors[r]),
                                    sums[r]);
        }
        group = _mm512_add_epi32(group, _mm512_set1_epi32(1));
      }
    } else {
      // Two groups at a time, the first in the lower half. High nibbles are not shifted down; they count 16
      // times as much as they should, and the low ones are brought to the same.
      group = _mm512_inserti64x4(group, _mm256_set1_epi32(1), 1);
      const __m512i low = _mm512_set1_epi8(0x0F), high = _mm512_set1_epi8(-0x10);
      for (size_t i = 0; i < count; i += 2, packed += kQ8Group) {
        const bool two = i + 1 < count;
        const __mmask8 there = two ? 0xFF : 0x0F;
        const int8_t* codes = x.codes + (g + i) * kQ8Group;
        const __m512i first = _mm512_loadu_si512(codes),
                      second = _mm512_maskz_loadu_epi64(two ? 0xFF : 0, codes + kQ8Group);
        const __m512i evens = _mm512_shuffle_i64x2(first, second, 0x44),
                      odds = _mm512_shuffle_i64x2(first, second, 0xEE);
        const __m512i start = _mm512_inserti64x4(
            start_of(x, g + i), _mm256_zextsi128_si256(_mm_cvtsi32_si128(two ? x.sums[g + i + 1] : 0)), 1);
#pragma GCC unroll 8
        for (size_t r = 0; r < R; ++r) {
          fetch(packed + r * stride + kAhead);
          const __m512i pairs = _mm512_maskz_loadu_epi64(there, packed + r * stride);
          const __m512i lows = _mm512_dpbusd_epi32(start, _mm512_and_si512(pairs, low), evens);
          const __m512i products =
              _mm512_dpbusd_epi32(_mm512_slli_epi32(lows, 4), _mm512_and_si512(pairs, high), odds);
          sums[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products), _mm512_permutexvar_ps(group, factors[r]),
                                    sums[r]);
        }
        group = _mm512_add_epi32(group, _mm512_set1_epi32(2));
      }
    }
  }
#pragma GCC unroll 8
  for (size_t r = 0; r < R; ++r)
    y[n + r * step] = _mm512_reduce_add_ps(sums[r]) + (bias ? bias[n + r * step] : 0.0f);
}

// Lane i = the sum of v[i]'s lanes: halves of pairs are added until one vector is left.
[[maybe_unused]] inline __m512 sums_of(const __m512 v[16]) {
  __m512 a[8], b[4], c[2];
#pragma GCC unroll 8
  for (size_t i = 0; i < 8; ++i)
    a[i] =
        _mm512_add_ps(_mm512_unpacklo_ps(v[2 * i], v[2 * i + 1]), _mm512_unpackhi_ps(v[2 * i], v[2 * i + 1]));
#pragma GCC unroll 4
  for (size_t i = 0; i < 4; ++i) {
    const __m512d first = _mm512_castps_pd(a[2 * i]), second = _mm512_castps_pd(a[2 * i + 1]);
    b[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(first, second)),
                         _mm512_castpd_ps(_mm512_unpackhi_pd(first, second)));
  }
#pragma GCC unroll 2
  for (size_t i = 0; i < 2; ++i)
    c[i] = _mm512_add_ps(_mm512_shuffle_f32x4(b[2 * i], b[2 * i + 1], 0x88),
                         _mm512_shuffle_f32x4(b[2 * i], b[2 * i + 1], 0xDD));
  return _mm512_add_ps(_mm512_shuffle_f32x4(c[0], c[1], 0x88), _mm512_shuffle_f32x4(c[0], c[1], 0xDD));
}

// The rows [n_begin, n_end) of a matrix with few columns (kGroups groups in blocks of one) for M tokens, 1 or
// 2: 16 sums at a time, as adding up lanes would otherwise take longer than multiplying.
template <unsigned kBits, size_t kGroups, size_t M>
[[maybe_unused]] inline void short_rows(const Q8Rows& x, const NBitsMatrix& w, const float* bias, float* y,
                                        size_t n_begin, size_t n_end) {
  constexpr size_t kGroupBytes = kQ8Group * kBits / 8, kRows = kLanes / M;
  constexpr size_t kFactors = kRows * kGroups;  // of a token; at least half a register
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i group = _mm512_and_si512(lane, _mm512_set1_epi32(static_cast<int>(kGroups - 1)));
  __m512 x_scales[M];
  __m512i codes[M][kGroups], start[M][kGroups];
#pragma GCC unroll 2
  for (size_t t = 0; t < M; ++t) {
    x_scales[t] =
        _mm512_permutexvar_ps(group, _mm512_maskz_loadu_ps(first_lanes(kGroups), x.scales + t * kGroups));
#pragma GCC unroll 4
    for (size_t g = 0; g < kGroups; ++g) {
      codes[t][g] = _mm512_loadu_si512(x.codes + (t * kGroups + g) * kQ8Group);
      start[t][g] = start_of(x, t * kGroups + g);
    }
  }
  alignas(64) float factors[M][kFactors < kLanes ? kLanes : kFactors];
  for (size_t n = n_begin; n < n_end; n += kRows) {
    const size_t rows = smaller(kRows, n_end - n);
#pragma GCC unroll 4
    for (size_t i = 0; i < kFactors; i += kLanes) {
      const __mmask16 there = rows * kGroups > i ? first_lanes(rows * kGroups - i) : 0;
      const __m512 scales = _mm512_maskz_loadu_ps(there, w.scales + n * kGroups + i);
#pragma GCC unroll 2
      for (size_t t = 0; t < M; ++t) _mm512_store_ps(factors[t] + i, _mm512_mul_ps(scales, x_scales[t]));
    }
    __m512 sums[kLanes];
#pragma GCC unroll 16
    for (size_t r = 0; r < kRows; ++r) {
      const uint8_t* packed = w.packed + (n + smaller(r, rows - 1)) * kGroups * kGroupBytes;
#pragma GCC unroll 4
      for (size_t g = 0; g < kGroups; ++g) {
        fetch(packed + g * kGroupBytes + kAheadOfShort);
        const __m512i weights = group_codes<kBits>(packed + g * kGroupBytes);
#pragma GCC unroll 2
        for (size_t t = 0; t < M; ++t) {
          const __m512 products = _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(start[t][g], weights, codes[t][g]));
          const __m512 factor = _mm512_set1_ps(factors[t][r * kGroups + g]);
          __m512& sum = sums[t * kRows + r];
          sum = g == 0 ? _mm512_mul_ps(products, factor) : _mm512_fmadd_ps(products, factor, sum);
        }
      }
    }
    const __m512 totals = sums_of(sums);
    const __mmask16 there = first_lanes(rows);
    const __m512 offsets = bias ? _mm512_maskz_loadu_ps(there, bias + n) : _mm512_setzero_ps();
    _mm512_mask_storeu_ps(y + n, there, _mm512_add_ps(totals, offsets));
    if constexpr (M == 2) {
      const __m512 second = _mm512_shuffle_f32x4(totals, totals, 0xEE);  // lanes 8 to 15
      _mm512_mask_storeu_ps(y + w.rows + n, there, _mm512_add_ps(second, offsets));
    }
  }
}

// A row after the other: W is read once for each token, which pays as long as there are few.
template <unsigned kBits>
[[maybe_unused]] inline void product_of_few(const Q8Rows& x, const NBitsMatrix& w, const float* bias,
                                            float* y, size_t T, size_t n_begin, size_t n_end) {
  const size_t groups = w.cols / kQ8Group;
  const auto from = [&](size_t t) {
    return Q8Rows{x.codes + t * w.cols, x.scales + t * groups, x.sums + t * groups};
  };
  const auto short_ones = [&]<size_t kGroups>() {
    size_t t = 0;
    for (; t + 2 <= T; t += 2)
      short_rows<kBits, kGroups, 2>(from(t), w, bias, y + t * w.rows, n_begin, n_end);
    if (t < T) short_rows<kBits, kGroups, 1>(from(t), w, bias, y + t * w.rows, n_begin, n_end);
  };
  if (w.block == kQ8Group && groups == 1) return short_ones.template operator()<1>();
  if (w.block == kQ8Group && groups == 2) return short_ones.template operator()<2>();
  if (w.block == kQ8Group && groups == 4) return short_ones.template operator()<4>();
  for (size_t t = 0; t < T; ++t) {
    const size_t step = (n_end - n_begin) / kStreams;
    for (size_t n = n_begin; n < n_begin + step; ++n)
      rows_by_token<kBits, kStreams>(from(t), w, bias, y + t * w.rows, n, step);
    for (size_t n = n_begin + kStreams * step; n < n_end; ++n)
      rows_by_token<kBits, 1>(from(t), w, bias, y + t * w.rows, n, 0);
  }
}

// --- A block of tokens

// 32 rows of up to 8 groups. codes[g][j][half], lane r: the codes 4j..4j+3 of group g of row 16 half + r,
// less the zero point if `kSigned`.
struct Tile {
  alignas(64) __m512i codes[kTileGroups][kLanes][2];
  alignas(64) __m512 scales[kTileGroups][2];
};

// The rows [n, n + rows) in `count` groups from `group` on; lanes past `rows` repeat the last row.
template <unsigned kBits, bool kSigned>
[[maybe_unused]] inline void unpack(const NBitsMatrix& w, size_t n, size_t rows, size_t group, size_t count,
                                    Tile& tile) {
  constexpr size_t kGroupBytes = kQ8Group * kBits / 8;
  const size_t row_bytes = w.cols / kQ8Group * kGroupBytes;
  __m512i m[kLanes];
  for (size_t half = 0; half < 2; ++half) {
    const auto row = [&](size_t r) { return n + smaller(half * kLanes + r, rows - 1); };
    for (size_t g = 0; g < count; ++g) {
#pragma GCC unroll 16
      for (size_t r = 0; r < kLanes; ++r) {
        const uint8_t* packed = w.packed + row(r) * row_bytes + (group + g) * kGroupBytes;
        fetch(packed + kTileRows * row_bytes);  // for the tile below
        m[r] = group_codes<kBits>(packed);
        if constexpr (kSigned) m[r] = _mm512_sub_epi8(m[r], _mm512_set1_epi8(kBits == 8 ? -128 : 8));
      }
      transpose(m);
#pragma GCC unroll 16
      for (size_t j = 0; j < kLanes; ++j) tile.codes[g][j][half] = m[j];
    }
#pragma GCC unroll 16
    for (size_t r = 0; r < kLanes; ++r) m[r] = _mm512_castps_si512(group_scales(w, row(r), group, count));
    transpose(m);
    for (size_t g = 0; g < count; ++g) tile.scales[g][half] = _mm512_castsi512_ps(m[g]);
  }
}

// Rows of y that a tile's product goes to: [T, N] from the tile's first row on.
struct Target {
  float* y;
  size_t N;
  __mmask16 rows[2];  // the rows of the tile that exist
  __m512 bias[2];
  bool first;  // y starts from the bias; else it has the products of earlier columns

  __m512 start(size_t t, size_t half) const {
    return first ? bias[half] : _mm512_maskz_loadu_ps(rows[half], y + t * N + half * kLanes);
  }
  void store(size_t t, size_t half, __m512 sums) const {
    _mm512_mask_storeu_ps(y + t * N + half * kLanes, rows[half], sums);
  }
};

// `Block`: kSigned, as for unpack(); multiply(tile, x, T, K, group, count, to) adds the tile's product with
// all T tokens to `to`.
template <typename Block, unsigned kBits>
inline void product_of_block(const Q8Rows& x, const NBitsMatrix& w, const float* bias, float* y, size_t T,
                             size_t n_begin, size_t n_end) {
  const size_t groups = w.cols / kQ8Group;
  Tile tile;
  for (size_t n = n_begin; n < n_end; n += kTileRows) {
    const size_t rows = smaller(kTileRows, n_end - n);
    Target to{y + n, w.rows, {first_lanes(rows), first_lanes(rows < kLanes ? 0 : rows - kLanes)}, {}, true};
    for (size_t half = 0; half < 2; ++half)
      to.bias[half] =
          bias ? _mm512_maskz_loadu_ps(to.rows[half], bias + n + half * kLanes) : _mm512_setzero_ps();
    for (size_t g = 0; g < groups; g += kTileGroups) {
      const size_t count = smaller(kTileGroups, groups - g);
      unpack<kBits, Block::kSigned>(w, n, rows, g, count, tile);
      to.first = g == 0;
      Block::multiply(tile, x, T, w.cols, g, count, to);
    }
  }
}

template <typename Block>
inline void product_of_many(const Q8Rows& x, const NBitsMatrix& w, const float* bias, float* y, size_t T,
                            size_t n_begin, size_t n_end) {
  (w.bits == 4 ? product_of_block<Block, 4> : product_of_block<Block, 8>)(x, w, bias, y, T, n_begin, n_end);
}

}  // namespace
}  // namespace allmem::avx512vnni
