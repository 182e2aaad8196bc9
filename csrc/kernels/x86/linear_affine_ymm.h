// 4-bit weights in blocks of 32 with zero points, and 8-bit activations, in 32-byte registers: the code that
// AVX2 and AVX-VNNI share. Structure as in linear_q8_ymm.h; a group of 64 columns is two blocks, and in a
// register of its packed codes, and of the even or the odd columns' activations, a half is a block.
//
// A `Dot` also has block_sums(pairs), lane r and 4 + r: the products of row r with the first and the second
// block; and block_products<M>(w, x, K, part, to), to[i][half]: those of a tile's rows with block `part` of
// token i.
#pragma once

#include "kernels/x86/linear_q8_ymm.h"

namespace allmem::avx2 {
namespace {

constexpr size_t kGroupBlocks = kQ8Group / kAffineBlock;  // 2
constexpr size_t kTileBlocks = kTileGroups * kGroupBlocks;

[[gnu::always_inline]] inline __m256 eight_halves(const uint16_t* from) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}

// The dwords of a group's codes, in the order of Q8Rows, that belong to a block: 4 even columns each, then 4
// odd.
[[gnu::always_inline]] constexpr size_t dword_of_block(size_t i, size_t part) {
  return i % 4 + part * 4 + i / 4 * 8;
}

// What products with the `count` <= 8 blocks from `block` on are multiplied by, and what is subtracted from
// them before, [block][row].
inline void affine_factors(const Q8Rows& x, const NBitsMatrix& w, const Rows& row, size_t block, size_t count,
                           float (*factors)[kStreams], float (*zeros)[kStreams]) {
  const size_t blocks = w.cols / kAffineBlock;
  if (count < kLanes) {
    for (size_t b = 0; b < count; ++b) {
      for (size_t r = 0; r < kStreams; ++r) {
        const size_t at = row[r] * blocks + block + b;
        factors[b][r] = _cvtsh_ss(w.half_scales[at]) * x.scales[(block + b) / kGroupBlocks];
        zeros[b][r] = _cvtsh_ss(w.half_zeros[at]) * static_cast<float>(x.sums[block + b]);
      }
    }
    return;
  }
  const __m256 four = _mm256_castps128_ps256(_mm_loadu_ps(x.scales + block / kGroupBlocks));
  const __m256 x_scales = _mm256_permutevar8x32_ps(four, _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3));
  const __m256 x_sums = _mm256_cvtepi32_ps(load(x.sums + block));
  __m256 f[kStreams], z[kStreams];
#pragma GCC unroll 4
  for (size_t r = 0; r < kStreams; ++r) {
    f[r] = _mm256_mul_ps(eight_halves(w.half_scales + row[r] * blocks + block), x_scales);
    z[r] = _mm256_mul_ps(eight_halves(w.half_zeros + row[r] * blocks + block), x_sums);
  }
  store_by_group(f, factors);
  store_by_group(z, zeros);
}

// y[row[r]] for one token.
template <typename Dot>
inline void affine_rows(const Q8Rows& x, const NBitsMatrix& w, const float* bias, float* y, const Rows& row) {
  constexpr size_t kGroupBytes = kQ8Group / 2;
  const size_t blocks = w.cols / kAffineBlock;
  alignas(16) float values[kStreams];  // a lane for each row
  const uint8_t* packed[kStreams];
#pragma GCC unroll 4
  for (size_t r = 0; r < kStreams; ++r) {
    packed[r] = w.packed + row[r] * (w.cols / 2);
    values[r] = bias == nullptr ? 0.0f : bias[row[r]];
  }
  __m128 sums = _mm_load_ps(values);
  alignas(32) float factors[kLanes][kStreams], zeros[kLanes][kStreams];
  for (size_t begin = 0; begin < blocks; begin += kLanes) {
    const size_t count = smaller(kLanes, blocks - begin);
    affine_factors(x, w, row, begin, count, factors, zeros);
    for (size_t b = 0; b < count; b += kGroupBlocks) {
      const size_t group = (begin + b) / kGroupBlocks;
      const int8_t* xs = x.codes + group * kQ8Group;
      const __m256i evens = load(xs), odds = load(xs + kQ8Group / 2);
      __m256i products[kStreams];
#pragma GCC unroll 4
      for (size_t r = 0; r < kStreams; ++r) {
        const uint8_t* at = packed[r] + group * kGroupBytes;
        _mm_prefetch(reinterpret_cast<const char*>(at + kAhead), _MM_HINT_T0);
        const GroupCodes codes = group_codes<Dot, 4>(at);
        products[r] = Dot::template pair<4>(codes.low, evens, codes.high, odds);
      }
      const __m256 totals =
          _mm256_sub_ps(_mm256_cvtepi32_ps(Dot::block_sums(products)), _mm256_load_ps(zeros[b]));
      sums = _mm_fmadd_ps(_mm256_castps256_ps128(totals), _mm_load_ps(factors[b]), sums);
      sums = _mm_fmadd_ps(_mm256_extractf128_ps(totals, 1), _mm_load_ps(factors[b + 1]), sums);
    }
  }
  _mm_store_ps(values, sums);
  for (size_t r = 0; r < row.rows; ++r) y[row[r]] = values[r];
}

template <typename Dot>
inline void affine_of_few(const Q8Rows& x, const NBitsMatrix& w, const float* bias, float* y, size_t T,
                          size_t n_begin, size_t n_end) {
  const auto rows = [&](const Rows& row) {
    for (size_t t = 0; t < T; ++t) {
      const Q8Rows from{x.codes + t * w.cols, x.scales + t * (w.cols / kQ8Group),
                        x.sums + t * (w.cols / kAffineBlock)};
      affine_rows<Dot>(from, w, bias, y + t * w.rows, row);
    }
  };
  const size_t step = (n_end - n_begin) / kStreams;
  for (size_t n = n_begin; n < n_begin + step; ++n) rows({n, step, kStreams});
  for (size_t n = n_begin + kStreams * step; n < n_end; n += kStreams)
    rows({n, 1, smaller(kStreams, n_end - n)});
}

// 16 rows of up to kTileGroups groups; what Tile is to linear_q8_ymm.h, with a scale and a zero point for
// each block.
struct AffineTile {
  alignas(32) __m256i codes[kTileGroups][kDwords][2];
  alignas(32) float scales[kTileBlocks][kTileRows], zeros[kTileBlocks][kTileRows];

  template <typename Dot>
  void unpack(const NBitsMatrix& w, size_t n, size_t rows, size_t group, size_t count) {
    unpack_codes<Dot, 4>(w, n, rows, group, count, codes);
    const size_t blocks = w.cols / kAffineBlock;
    for (size_t r = 0; r < kTileRows; ++r) {
      const size_t at = (n + smaller(r, rows - 1)) * blocks + group * kGroupBlocks;
      for (size_t b = 0; b < count * kGroupBlocks; ++b) {
        scales[b][r] = _cvtsh_ss(w.half_scales[at + b]);
        zeros[b][r] = _cvtsh_ss(w.half_zeros[at + b]);
      }
    }
  }
};

// Adds the tile's products with the tokens t, ..., t + M - 1.
template <typename Dot, size_t M>
inline void multiply_affine(const AffineTile& tile, const Q8Rows& x, size_t t, size_t K, size_t group,
                            size_t count, const Target& to) {
  const size_t groups = K / kQ8Group;
  alignas(32) float sums[M][kTileRows];
  for (size_t i = 0; i < M; ++i) to.load(t + i, sums[i]);
  for (size_t g = 0; g < count; ++g) {
    const size_t at = t * groups + group + g;
#pragma GCC unroll 2
    for (size_t part = 0; part < kGroupBlocks; ++part) {
      __m256i products[M][2];
      Dot::template block_products<M>(tile.codes[g], x.codes + t * K + (group + g) * kQ8Group, K, part,
                                      products);
      const size_t b = g * kGroupBlocks + part;
#pragma GCC unroll 4
      for (size_t i = 0; i < M; ++i) {
        const __m256 x_scale = _mm256_set1_ps(x.scales[at + i * groups]);
        const __m256 x_sum =
            _mm256_set1_ps(static_cast<float>(x.sums[(at + i * groups) * kGroupBlocks + part]));
#pragma GCC unroll 2
        for (size_t half = 0; half < 2; ++half) {
          float* sum = sums[i] + kLanes * half;
          const __m256 factor = _mm256_mul_ps(_mm256_load_ps(tile.scales[b] + kLanes * half), x_scale);
          const __m256 product = _mm256_fnmadd_ps(_mm256_load_ps(tile.zeros[b] + kLanes * half), x_sum,
                                                  _mm256_cvtepi32_ps(products[i][half]));
          _mm256_store_ps(sum, _mm256_fmadd_ps(product, factor, _mm256_load_ps(sum)));
        }
      }
    }
  }
  for (size_t i = 0; i < M; ++i) to.store(t + i, sums[i]);
}

template <typename Dot>
inline void affine_product(const Q8Rows& x, const NBitsMatrix& w, const float* bias, float* y, size_t T,
                           size_t n_begin, size_t n_end) {
  if (T < kFewTokens) return affine_of_few<Dot>(x, w, bias, y, T, n_begin, n_end);
  by_tiles<AffineTile>(
      w, {.bias = bias}, y, T, n_begin, n_end,
      [&](size_t n, size_t rows, size_t g, size_t count, AffineTile& tile) {
        tile.template unpack<Dot>(w, n, rows, g, count);
      },
      [&]<size_t M>(const AffineTile& tile, size_t, size_t g, size_t count, size_t t, const Target& to) {
        multiply_affine<Dot, M>(tile, x, t, w.cols, g, count, to);
      });
}

}  // namespace
}  // namespace allmem::avx2
