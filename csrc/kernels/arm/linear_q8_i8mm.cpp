// Linear layers with 8-bit activations, with products of 2x8 by 8x2 bytes (smmla): twice the work of a dot
// product. Few tokens go to the dot products.
#include "kernels/arm/dotprod.h"
#include "kernels/arm/i8mm.h"
#include "kernels/arm/linear_affine.h"

namespace allmem::i8mm {

namespace {

using namespace allmem::neon;

// Eight bytes of one vector, then eight of another: the first ones of each, and the second ones.
int8x16_t first_halves(int8x16_t a, int8x16_t b) {
  return vreinterpretq_s8_s64(vzip1q_s64(vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b)));
}
int8x16_t second_halves(int8x16_t a, int8x16_t b) {
  return vreinterpretq_s8_s64(vzip2q_s64(vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b)));
}
float32x4_t first_halves(float32x4_t a, float32x4_t b) {
  return vreinterpretq_f32_f64(vzip1q_f64(vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b)));
}
float32x4_t second_halves(float32x4_t a, float32x4_t b) {
  return vreinterpretq_f32_f64(vzip2q_f64(vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b)));
}

struct Smmla {
  static constexpr size_t kTokens = 4,
                          kQuads = 2;  // of a tile: eight sums of a group and of all in registers

  // Eight columns of the first two rows, of the last two, and so the next eight.
  static void arrange(int8x16_t a, int8x16_t b, int8x16_t c, int8x16_t d, int8x16_t* out) {
    out[0] = first_halves(a, b);
    out[1] = first_halves(c, d);
    out[2] = second_halves(a, b);
    out[3] = second_halves(c, d);
  }

  // Pairs of tokens, eight columns of both a vector, and what a product of each pair with two rows needs, in
  // the order of its four sums: token 0 by row 0 and 1, token 1 by row 0 and 1.
  template <size_t M>
  struct Tokens {
    int8x16_t codes[kTileGroups][2 * kChunks][M / 2];
    int32x4_t sums[kTileGroups][M / 2];
    float32x4_t scales[kTileGroups][M / 2];

    Tokens(const TokenRows<M>& x, size_t count) {
      for (size_t g = 0; g < count; ++g) {
#pragma GCC unroll 2
        for (size_t p = 0; p < M / 2; ++p) {
          const size_t i = 2 * p, j = i + 1;
#pragma GCC unroll 4
          for (size_t c = 0; c < kChunks; ++c) {
            const int8x16_t a = vld1q_s8(x.codes[i] + g * kQ8Group + 16 * c);
            const int8x16_t b = vld1q_s8(x.codes[j] + g * kQ8Group + 16 * c);
            codes[g][2 * c][p] = first_halves(a, b);
            codes[g][2 * c + 1][p] = second_halves(a, b);
          }
          sums[g][p] = vcombine_s32(vld1_dup_s32(x.sums[i] + g), vld1_dup_s32(x.sums[j] + g));
          scales[g][p] = vcombine_f32(vld1_dup_f32(x.scales[i] + g), vld1_dup_f32(x.scales[j] + g));
        }
      }
    }
  };

  static constexpr size_t kRowPairs = 2 * kQuads;

  // Sums by token, a lane for each row <-> by pairs of tokens and of rows.
  template <size_t M>
  [[gnu::always_inline]] static void to_pairs(float32x4_t (*by_token)[kQuads],
                                              float32x4_t (*pairs)[kRowPairs]) {
#pragma GCC unroll 2
    for (size_t p = 0; p < M / 2; ++p) {
#pragma GCC unroll 2
      for (size_t q = 0; q < kQuads; ++q) {
        pairs[p][2 * q] = first_halves(by_token[2 * p][q], by_token[2 * p + 1][q]);
        pairs[p][2 * q + 1] = second_halves(by_token[2 * p][q], by_token[2 * p + 1][q]);
      }
    }
  }
  template <size_t M>
  [[gnu::always_inline]] static void from_pairs(float32x4_t (*pairs)[kRowPairs],
                                                float32x4_t (*by_token)[kQuads]) {
#pragma GCC unroll 2
    for (size_t p = 0; p < M / 2; ++p) {
#pragma GCC unroll 2
      for (size_t q = 0; q < kQuads; ++q) {
        by_token[2 * p][q] = first_halves(pairs[p][2 * q], pairs[p][2 * q + 1]);
        by_token[2 * p + 1][q] = second_halves(pairs[p][2 * q], pairs[p][2 * q + 1]);
      }
    }
  }
  // The four values of two rows, for two tokens.
  [[gnu::always_inline]] static float32x4_t of_row_pair(const float* two) {
    return vcombine_f32(vld1_f32(two), vld1_f32(two));
  }

  template <size_t M>
  static void multiply_affine(const AffineTile& tile, size_t quad, const Tokens<M>& x,
                              const int32_t* const* block_sums, size_t count, float32x4_t (*out)[kQuads]) {
    constexpr size_t kTokenPairs = M / 2;
    float32x4_t sums[kTokenPairs][kRowPairs];
    to_pairs<M>(out, sums);
    for (size_t g = 0; g < count; ++g) {
#pragma GCC unroll 2
      for (size_t part = 0; part < kGroupBlocks; ++part) {
        int32x4_t products[kTokenPairs][kRowPairs];
#pragma GCC unroll 2
        for (size_t p = 0; p < kTokenPairs; ++p)
#pragma GCC unroll 4
          for (size_t r = 0; r < kRowPairs; ++r) products[p][r] = vdupq_n_s32(0);
#pragma GCC unroll 4
        for (size_t k = 0; k < 4; ++k) {
          const size_t j = 2 * (part + k / 2 * 2) + k % 2;  // the halves of two chunks
#pragma GCC unroll 4
          for (size_t r = 0; r < kRowPairs; ++r) {
            const int8x16_t w = tile.codes[g][quad + r / 2][2 * j + r % 2];
#pragma GCC unroll 2
            for (size_t p = 0; p < kTokenPairs; ++p)
              products[p][r] = vmmlaq_s32(products[p][r], x.codes[g][j][p], w);
          }
        }
        const size_t b = g * kGroupBlocks + part;
#pragma GCC unroll 4
        for (size_t r = 0; r < kRowPairs; ++r) {
          const float32x4_t scales = of_row_pair(tile.scales[b] + 4 * quad + 2 * r),
                            zeros = of_row_pair(tile.zeros[b] + 4 * quad + 2 * r);
#pragma GCC unroll 2
          for (size_t p = 0; p < kTokenPairs; ++p) {
            const int32x4_t x_sums =
                vcombine_s32(vld1_dup_s32(block_sums[2 * p] + b), vld1_dup_s32(block_sums[2 * p + 1] + b));
            sums[p][r] = add_block(sums[p][r], products[p][r], zeros, vcvtq_f32_s32(x_sums),
                                   vmulq_f32(scales, x.scales[g][p]));
          }
        }
      }
    }
    from_pairs<M>(sums, out);
  }

  template <unsigned kBits, size_t M>
  static void multiply(const Tile& tile, size_t quad, const Tokens<M>& x, size_t count,
                       float32x4_t (*out)[kQuads]) {
    constexpr size_t kTokenPairs = M / 2;
    float32x4_t sums[kTokenPairs][kRowPairs];
    to_pairs<M>(out, sums);
    for (size_t g = 0; g < count; ++g) {
      int32x4_t products[kTokenPairs][kRowPairs];
#pragma GCC unroll 2
      for (size_t p = 0; p < kTokenPairs; ++p)
#pragma GCC unroll 4
        for (size_t r = 0; r < kRowPairs; ++r) products[p][r] = kBits == 8 ? vdupq_n_s32(0) : x.sums[g][p];
#pragma GCC unroll 8
      for (size_t j = 0; j < 2 * kChunks; ++j) {
#pragma GCC unroll 4
        for (size_t r = 0; r < kRowPairs; ++r) {
          const int8x16_t w = tile.codes[g][quad + r / 2][2 * j + r % 2];
#pragma GCC unroll 2
          for (size_t p = 0; p < kTokenPairs; ++p)
            products[p][r] = vmmlaq_s32(products[p][r], x.codes[g][j][p], w);
        }
      }
#pragma GCC unroll 4
      for (size_t r = 0; r < kRowPairs; ++r) {
        const float32x4_t row_scales = of_row_pair(tile.scales[g] + 4 * quad + 2 * r);
#pragma GCC unroll 2
        for (size_t p = 0; p < kTokenPairs; ++p)
          sums[p][r] =
              vfmaq_f32(sums[p][r], vcvtq_f32_s32(products[p][r]), vmulq_f32(row_scales, x.scales[g][p]));
      }
    }
    from_pairs<M>(sums, out);
  }
};

}  // namespace

void linear_q8(const Q8Rows& x, const NBitsMatrix& w, const Init& init, float* y, size_t T, size_t n_begin,
               size_t n_end) {
  if (T < kFewTokens) return dotprod::linear_q8(x, w, init, y, T, n_begin, n_end);
  product_of_block<Smmla>(x, w, init, y, T, n_begin, n_end);
}

void linear_affine(const Q8Rows& x, const NBitsMatrix& w, const float* bias, float* y, size_t T,
                   size_t n_begin, size_t n_end) {
  if (T < kFewTokens) return dotprod::linear_affine(x, w, bias, y, T, n_begin, n_end);
  affine_of_block<Smmla>(x, w, bias, y, T, n_begin, n_end);
}

}  // namespace allmem::i8mm
