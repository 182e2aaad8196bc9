// Linear layers with 4- or 8-bit weights and 8-bit activations: the code that the levels of Arm share, which
// differ in how they multiply bytes (`Dot`).
//
// All of them multiply signed bytes: 4-bit codes as they are, with the zero point taken out by Q8Rows::sums,
// 8-bit codes less their zero point. Few tokens are bound by reading the weights: four rows at a time share
// the activations. A block of tokens is bound by arithmetic: a tile of 32 rows is unpacked once into the
// first-level cache, in the order in which `Dot` multiplies, and used for every token.
//
// Everything has internal linkage, so that no code escapes the instruction set of the file that includes it.
#pragma once

#include "kernels/arm/neon_math.h"
#include "kernels/kernels.h"

namespace allmem::neon {
namespace {

constexpr size_t kTileRows = 32, kTileGroups = 8;  // by 512 columns: 16 KiB of the first-level cache
constexpr size_t kChunks = kQ8Group / 16;          // vectors of a group of codes
constexpr size_t kFewTokens = 4;                   // below it a tile does not repay being unpacked
constexpr size_t kAhead = 2048;  // bytes that are fetched ahead: hardware prefetchers stop at page ends

// A group of 64 codes, one a byte, in the order of Q8Rows.
struct GroupCodes {
  int8x16_t v[kChunks];
};

template <unsigned kBits>
[[gnu::always_inline]] inline GroupCodes group_codes(const uint8_t* packed) {
  GroupCodes codes;
  if constexpr (kBits == 8) {
#pragma GCC unroll 4
    for (size_t c = 0; c < kChunks; ++c)
      codes.v[c] = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(packed + 16 * c), vdupq_n_u8(0x80)));
  } else {
#pragma GCC unroll 2
    for (size_t c = 0; c < kChunks / 2; ++c) {
      const uint8x16_t pairs = vld1q_u8(packed + 16 * c);
      codes.v[c] = vreinterpretq_s8_u8(vandq_u8(pairs, vdupq_n_u8(0xF)));
      codes.v[c + kChunks / 2] = vreinterpretq_s8_u8(vshrq_n_u8(pairs, 4));
    }
  }
  return codes;
}

// Sums of products with the codes of a group: the zero points that are still in them are taken out.
template <unsigned kBits>
[[gnu::always_inline]] inline int32x4_t less_zero_points(int32x4_t products, int32_t sum) {
  return kBits == 8 ? products : vaddq_s32(products, vdupq_n_s32(sum));
}

// The scales of R rows, 4 or 1, from number `at` on, which are `stride` apart.
template <size_t R>
class RowScales {
 public:
  RowScales(const NBitsMatrix& w, size_t at, size_t stride)
      : floats_(w.half_scales == nullptr ? w.scales + at : nullptr),
        halves_(w.half_scales == nullptr ? nullptr : w.half_scales + at),
        stride_(stride) {}
  RowScales(const uint16_t* halves, size_t stride) : floats_(nullptr), halves_(halves), stride_(stride) {}

  // A lane for each row.
  [[gnu::always_inline]] float32x4_t operator[](size_t i) const {
    if (halves_ == nullptr) {
      const float* from = floats_ + i;
      float32x4_t scales = vld1q_dup_f32(from);
      if constexpr (R == 4) {
        scales = vld1q_lane_f32(from + stride_, scales, 1);
        scales = vld1q_lane_f32(from + 2 * stride_, scales, 2);
        scales = vld1q_lane_f32(from + 3 * stride_, scales, 3);
      }
      return scales;
    }
    const uint16_t* from = halves_ + i;
    uint16x4_t scales = vld1_dup_u16(from);
    if constexpr (R == 4) {
      scales = vld1_lane_u16(from + stride_, scales, 1);
      scales = vld1_lane_u16(from + 2 * stride_, scales, 2);
      scales = vld1_lane_u16(from + 3 * stride_, scales, 3);
    }
    return vcvt_f32_f16(vreinterpret_f16_u16(scales));
  }

 private:
  const float* floats_;
  const uint16_t* halves_;
  size_t stride_;
};

// --- Few tokens

// y[n..n + R) for M tokens, 1 or 2. R is 4, or 1 at the end of a slice.
template <typename Dot, unsigned kBits, size_t R, size_t M>
void rows_by_tokens(const Q8Rows& x, const NBitsMatrix& w, const Init& init, float* y, size_t n) {
  constexpr size_t kGroupBytes = kQ8Group * kBits / 8;
  const size_t groups = w.cols / kQ8Group, row_bytes = groups * kGroupBytes;
  const int log2 = __builtin_ctzll(w.block / kQ8Group);
  const size_t scale_row = groups >> log2;
  const RowScales<R> scales(w, n * scale_row, scale_row);
  const uint8_t* packed = w.packed + n * row_bytes;
  float32x4_t sums[M];  // a lane for each row
  for (size_t i = 0; i < M; ++i) {
    if (init.beta != nullptr) {
      sums[i] = vmulq_n_f32(load_first(y + i * w.rows + n, R), init.beta[i]);
    } else {
      sums[i] = init.bias ? load_first(init.bias + n, R) : vdupq_n_f32(0);
    }
  }
  for (size_t g = 0; g < groups; ++g, packed += kGroupBytes) {
    GroupCodes codes[M];
#pragma GCC unroll 2
    for (size_t i = 0; i < M; ++i) {
#pragma GCC unroll 4
      for (size_t c = 0; c < kChunks; ++c)
        codes[i].v[c] = vld1q_s8(x.codes + i * w.cols + g * kQ8Group + 16 * c);
    }
    int32x4_t products[M][4] = {};
#pragma GCC unroll 4
    for (size_t r = 0; r < R; ++r) {
      __builtin_prefetch(packed + r * row_bytes + kAhead);
      const GroupCodes weights = group_codes<kBits>(packed + r * row_bytes);
#pragma GCC unroll 2
      for (size_t i = 0; i < M; ++i) products[i][r] = Dot::template dot<kBits>(weights, codes[i]);
    }
    const float32x4_t row_scales = scales[g >> log2];
#pragma GCC unroll 2
    for (size_t i = 0; i < M; ++i) {
      const int32x4_t totals =
          horizontal_sums(products[i][0], products[i][1], products[i][2], products[i][3]);
      sums[i] = vfmaq_f32(sums[i], vcvtq_f32_s32(less_zero_points<kBits>(totals, x.sums[i * groups + g])),
                          vmulq_n_f32(row_scales, x.scales[i * groups + g]));
    }
  }
  for (size_t i = 0; i < M; ++i) store_first(y + i * w.rows + n, R, sums[i]);
}

// Two tokens at a time use what is read; the others find it in the cache.
template <typename Dot, unsigned kBits>
void product_of_few(const Q8Rows& x, const NBitsMatrix& w, const Init& init, float* y, size_t T,
                    size_t n_begin, size_t n_end) {
  const size_t groups = w.cols / kQ8Group;
  const auto rows = [&]<size_t R>(size_t n) {
    for (size_t t = 0; t < T; t += 2) {
      const Q8Rows from{x.codes + t * w.cols, x.scales + t * groups, x.sums + t * groups};
      (T - t == 1 ? rows_by_tokens<Dot, kBits, R, 1>
                  : rows_by_tokens<Dot, kBits, R, 2>)(from, w, init.from_token(t), y + t * w.rows, n);
    }
  };
  size_t n = n_begin;
  for (; n + 4 <= n_end; n += 4) rows.template operator()<4>(n);
  for (; n < n_end; ++n) rows.template operator()<1>(n);
}

// --- A block of tokens

// 32 rows of up to 8 groups, four rows (a quad) at a time: 16 columns of a quad (a chunk) take four vectors,
// in the order of Dot::arrange.
struct Tile {
  int8x16_t codes[kTileGroups][kTileRows / 4][4 * kChunks];
  float scales[kTileGroups][kTileRows];
};

// The rows [n, n + rows) in `count` groups from `group` on. Rows past them repeat the last one, until there
// are as many quads as Dot takes at a time.
template <typename Dot, unsigned kBits>
void unpack(const NBitsMatrix& w, size_t n, size_t rows, size_t group, size_t count, Tile& tile) {
  constexpr size_t kGroupBytes = kQ8Group * kBits / 8, kStep = 4 * Dot::kQuads;
  const size_t groups = w.cols / kQ8Group, quads = (rows + kStep - 1) / kStep * Dot::kQuads;
  const int log2 = __builtin_ctzll(w.block / kQ8Group);
  for (size_t g = 0; g < count; ++g) {
    for (size_t quad = 0; quad < quads; ++quad) {
      GroupCodes codes[4];
#pragma GCC unroll 4
      for (size_t r = 0; r < 4; ++r) {
        const size_t at = (n + smaller(4 * quad + r, rows - 1)) * groups + group + g;
        codes[r] = group_codes<kBits>(w.packed + at * kGroupBytes);
        tile.scales[g][4 * quad + r] = scale_at(w, at >> log2);
      }
#pragma GCC unroll 4
      for (size_t c = 0; c < kChunks; ++c)
        Dot::arrange(codes[0].v[c], codes[1].v[c], codes[2].v[c], codes[3].v[c], tile.codes[g][quad] + 4 * c);
    }
  }
}

// The groups from `group` on of the tokens [t, t + present). Tokens past them, up to M, repeat the last one.
template <size_t M>
struct TokenRows {
  const int8_t* codes[M];
  const float* scales[M];
  const int32_t* sums[M];

  TokenRows(const Q8Rows& x, size_t K, size_t group, size_t t, size_t present) {
#pragma GCC unroll 4
    for (size_t i = 0; i < M; ++i) {
      const size_t at = (t + smaller(i, present - 1)) * (K / kQ8Group) + group;
      codes[i] = x.codes + at * kQ8Group;
      scales[i] = x.scales + at;
      sums[i] = x.sums + at;
    }
  }
};

// y of the rows [n, n + rows) += the tile's product with the tokens [t, t + present), present <= M.
template <typename Dot, unsigned kBits, size_t M>
void add_product(const Tile& tile, const Q8Rows& x, const NBitsMatrix& w, size_t n, size_t rows, size_t group,
                 size_t count, float* y, size_t t, size_t present) {
  const typename Dot::template Tokens<M> tokens(TokenRows<M>(x, w.cols, group, t, present), count);
  for (size_t r = 0; r < rows; r += 4 * Dot::kQuads) {
    float32x4_t sums[M][Dot::kQuads];  // a lane for each row
    const auto at = [&](size_t i, size_t q) { return y + (t + i) * w.rows + n + r + 4 * q; };
    const auto lanes = [&](size_t q) { return r + 4 * q < rows ? smaller(4, rows - r - 4 * q) : 0; };
    for (size_t i = 0; i < M; ++i)
      for (size_t q = 0; q < Dot::kQuads; ++q)
        sums[i][q] = i < present ? load_first(at(i, q), lanes(q)) : vdupq_n_f32(0);
    Dot::template multiply<kBits, M>(tile, r / 4, tokens, count, sums);
    for (size_t i = 0; i < present; ++i)
      for (size_t q = 0; q < Dot::kQuads; ++q) store_first(at(i, q), lanes(q), sums[i][q]);
  }
}

template <typename Dot, unsigned kBits>
void add_product_of_block(const Q8Rows& x, const NBitsMatrix& w, float* y, size_t T, size_t n_begin,
                          size_t n_end) {
  constexpr size_t kMany = Dot::kTokens, kFew = kMany / 2;
  const size_t groups = w.cols / kQ8Group;
  Tile tile;
  for (size_t n = n_begin; n < n_end; n += kTileRows) {
    const size_t rows = smaller(kTileRows, n_end - n);
    for (size_t g = 0; g < groups; g += kTileGroups) {
      const size_t count = smaller(kTileGroups, groups - g);
      unpack<Dot, kBits>(w, n, rows, g, count, tile);
      for (size_t t = 0; t < T; t += kMany) {
        if (T - t > kFew) {
          add_product<Dot, kBits, kMany>(tile, x, w, n, rows, g, count, y, t, smaller(kMany, T - t));
        } else {
          add_product<Dot, kBits, kFew>(tile, x, w, n, rows, g, count, y, t, T - t);
        }
      }
    }
  }
}

template <typename Dot>
void product_of_block(const Q8Rows& x, const NBitsMatrix& w, const Init& init, float* y, size_t T,
                      size_t n_begin, size_t n_end) {
  for (size_t t = 0; t < T; ++t) {
    float* row = y + t * w.rows;
    for (size_t n = n_begin; n < n_end; ++n) row[n] = init.start(t, n, row[n]);
  }
  (w.bits == 4 ? add_product_of_block<Dot, 4> : add_product_of_block<Dot, 8>)(x, w, y, T, n_begin, n_end);
}

template <typename Dot>
void product(const Q8Rows& x, const NBitsMatrix& w, const Init& init, float* y, size_t T, size_t n_begin,
             size_t n_end) {
  if (T >= kFewTokens) return product_of_block<Dot>(x, w, init, y, T, n_begin, n_end);
  (w.bits == 4 ? product_of_few<Dot, 4> : product_of_few<Dot, 8>)(x, w, init, y, T, n_begin, n_end);
}

}  // namespace
}  // namespace allmem::neon
