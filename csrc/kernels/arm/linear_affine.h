// 4-bit weights in blocks of 32 with zero points, and 8-bit activations: the code that the levels of Arm
// share. Structure as in linear_q8.h; a group of 64 columns is two blocks, and of its four chunks of 16 codes
// the first and the third (even columns, odd columns) are the first block, the others the second.
//
// A `Dot` also has dot_block(w, x, part), the products of a group's codes of one block, and
// multiply_affine<M>(tile, quad, tokens, count, sums).
#pragma once

#include "kernels/arm/linear_q8.h"

namespace allmem::neon {
namespace {

constexpr size_t kGroupBlocks = kQ8Group / kAffineBlock;  // 2

// What a block adds: (products - zero sum) * scale, with x's scale in `scale`.
[[gnu::always_inline]] inline float32x4_t add_block(float32x4_t sums, int32x4_t products, float32x4_t zeros,
                                                    float32x4_t x_sums, float32x4_t scales) {
  return vfmaq_f32(sums, vfmsq_f32(vcvtq_f32_s32(products), zeros, x_sums), scales);
}

// y[n..n + R) for one token. R is 4, or 1 at the end of a slice.
template <typename Dot, size_t R>
void affine_rows(const Q8Rows& x, const NBitsMatrix& w, const float* bias, float* y, size_t n) {
  constexpr size_t kGroupBytes = kQ8Group / 2;
  const size_t groups = w.cols / kQ8Group, blocks = w.cols / kAffineBlock, row_bytes = w.cols / 2;
  const RowScales<R> scales(w.half_scales + n * blocks, blocks), zeros(w.half_zeros + n * blocks, blocks);
  const uint8_t* packed = w.packed + n * row_bytes;
  float32x4_t sums = bias ? load_first(bias + n, R) : vdupq_n_f32(0);  // a lane for each row
  for (size_t g = 0; g < groups; ++g, packed += kGroupBytes) {
    GroupCodes codes;
#pragma GCC unroll 4
    for (size_t c = 0; c < kChunks; ++c) codes.v[c] = vld1q_s8(x.codes + g * kQ8Group + 16 * c);
    int32x4_t products[kGroupBlocks][4] = {};
#pragma GCC unroll 4
    for (size_t r = 0; r < R; ++r) {
      __builtin_prefetch(packed + r * row_bytes + kAhead);
      const GroupCodes weights = group_codes<4>(packed + r * row_bytes);
#pragma GCC unroll 2
      for (size_t part = 0; part < kGroupBlocks; ++part)
        products[part][r] = Dot::dot_block(weights, codes, part);
    }
#pragma GCC unroll 2
    for (size_t part = 0; part < kGroupBlocks; ++part) {
      const int32x4_t* of = products[part];
      const size_t b = g * kGroupBlocks + part;
      sums = add_block(sums, horizontal_sums(of[0], of[1], of[2], of[3]), zeros[b],
                       vdupq_n_f32(static_cast<float>(x.sums[b])), vmulq_n_f32(scales[b], x.scales[g]));
    }
  }
  store_first(y + n, R, sums);
}

template <typename Dot>
void affine_of_few(const Q8Rows& x, const NBitsMatrix& w, const float* bias, float* y, size_t T,
                   size_t n_begin, size_t n_end) {
  const auto rows = [&]<size_t R>(size_t n) {
    for (size_t t = 0; t < T; ++t) {
      const Q8Rows from{x.codes + t * w.cols, x.scales + t * (w.cols / kQ8Group),
                        x.sums + t * (w.cols / kAffineBlock)};
      affine_rows<Dot, R>(from, w, bias, y + t * w.rows, n);
    }
  };
  size_t n = n_begin;
  for (; n + 4 <= n_end; n += 4) rows.template operator()<4>(n);
  for (; n < n_end; ++n) rows.template operator()<1>(n);
}

// 32 rows of up to 8 groups; what Tile is to linear_q8.h, with a scale and a zero point for each block.
struct AffineTile {
  int8x16_t codes[kTileGroups][kTileRows / 4][4 * kChunks];
  float scales[kTileGroups * kGroupBlocks][kTileRows], zeros[kTileGroups * kGroupBlocks][kTileRows];

  template <typename Dot>
  void unpack(const NBitsMatrix& w, size_t n, size_t rows, size_t group, size_t count) {
    constexpr size_t kGroupBytes = kQ8Group / 2, kStep = 4 * Dot::kQuads;
    const size_t groups = w.cols / kQ8Group, quads = (rows + kStep - 1) / kStep * Dot::kQuads;
    for (size_t g = 0; g < count; ++g) {
      for (size_t quad = 0; quad < quads; ++quad) {
        GroupCodes rows_codes[4];
#pragma GCC unroll 4
        for (size_t r = 0; r < 4; ++r) {
          const size_t at = (n + smaller(4 * quad + r, rows - 1)) * groups + group + g;
          rows_codes[r] = group_codes<4>(w.packed + at * kGroupBytes);
#pragma GCC unroll 2
          for (size_t part = 0; part < kGroupBlocks; ++part) {
            const size_t b = g * kGroupBlocks + part, from = at * kGroupBlocks + part;
            scales[b][4 * quad + r] = float_of(w.half_scales[from]);
            zeros[b][4 * quad + r] = float_of(w.half_zeros[from]);
          }
        }
#pragma GCC unroll 4
        for (size_t c = 0; c < kChunks; ++c)
          Dot::arrange(rows_codes[0].v[c], rows_codes[1].v[c], rows_codes[2].v[c], rows_codes[3].v[c],
                       codes[g][quad] + 4 * c);
      }
    }
  }
};

// The groups from `group` on of the tokens [t, t + present), as in linear_q8.h, with the sums of blocks.
template <size_t M>
struct AffineRows : TokenRows<M> {
  const int32_t* block_sums[M];

  AffineRows(const Q8Rows& x, size_t K, size_t group, size_t t, size_t present)
      : TokenRows<M>(x, K, group, t, present) {
#pragma GCC unroll 4
    for (size_t i = 0; i < M; ++i) {
      const size_t at = (t + smaller(i, present - 1)) * (K / kQ8Group) + group;
      block_sums[i] = x.sums + at * kGroupBlocks;
    }
  }
};

// y of the rows [n, n + rows) += the tile's product with the tokens [t, t + present), present <= M.
template <typename Dot, size_t M>
void add_affine(const AffineTile& tile, const Q8Rows& x, const NBitsMatrix& w, size_t n, size_t rows,
                size_t group, size_t count, float* y, size_t t, size_t present) {
  const AffineRows<M> token_rows(x, w.cols, group, t, present);
  const typename Dot::template Tokens<M> tokens(token_rows, count);
  for (size_t r = 0; r < rows; r += 4 * Dot::kQuads) {
    float32x4_t sums[M][Dot::kQuads];  // a lane for each row
    const auto at = [&](size_t i, size_t q) { return y + (t + i) * w.rows + n + r + 4 * q; };
    const auto lanes = [&](size_t q) { return r + 4 * q < rows ? smaller(4, rows - r - 4 * q) : 0; };
    for (size_t i = 0; i < M; ++i)
      for (size_t q = 0; q < Dot::kQuads; ++q)
        sums[i][q] = i < present ? load_first(at(i, q), lanes(q)) : vdupq_n_f32(0);
    Dot::template multiply_affine<M>(tile, r / 4, tokens, token_rows.block_sums, count, sums);
    for (size_t i = 0; i < present; ++i)
      for (size_t q = 0; q < Dot::kQuads; ++q) store_first(at(i, q), lanes(q), sums[i][q]);
  }
}

template <typename Dot>
void affine_of_block(const Q8Rows& x, const NBitsMatrix& w, const float* bias, float* y, size_t T,
                     size_t n_begin, size_t n_end) {
  constexpr size_t kMany = Dot::kTokens, kFew = kMany / 2;
  for (size_t t = 0; t < T; ++t)
    for (size_t n = n_begin; n < n_end; ++n) y[t * w.rows + n] = bias ? bias[n] : 0.0f;
  const size_t groups = w.cols / kQ8Group;
  AffineTile tile;
  for (size_t n = n_begin; n < n_end; n += kTileRows) {
    const size_t rows = smaller(kTileRows, n_end - n);
    for (size_t g = 0; g < groups; g += kTileGroups) {
      const size_t count = smaller(kTileGroups, groups - g);
      tile.unpack<Dot>(w, n, rows, g, count);
      for (size_t t = 0; t < T; t += kMany) {
        if (T - t > kFew) {
          add_affine<Dot, kMany>(tile, x, w, n, rows, g, count, y, t, smaller(kMany, T - t));
        } else {
          add_affine<Dot, kFew>(tile, x, w, n, rows, g, count, y, t, T - t);
        }
      }
    }
  }
}

}  // namespace
}  // namespace allmem::neon
