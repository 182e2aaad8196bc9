// Linear layers with 8-bit activations, with dot products of four bytes (sdot).
//
// For a block of tokens every lane is a row: sdot by element multiplies four columns of four rows by four
// codes of a token, so that nothing is added across lanes.
#include "kernels/arm/dotprod.h"
#include "kernels/arm/linear_affine.h"

namespace allmem::dotprod {

namespace {

using namespace allmem::neon;

struct Sdot {
  static constexpr size_t kTokens = 4,
                          kQuads = 2;  // of a tile: eight sums of a group and of all in registers

  template <unsigned kBits>
  [[gnu::always_inline]] static int32x4_t dot(const GroupCodes& w, const GroupCodes& x) {
    int32x4_t sums = vdupq_n_s32(0);
#pragma GCC unroll 4
    for (size_t c = 0; c < kChunks; ++c) sums = vdotq_s32(sums, w.v[c], x.v[c]);
    return sums;
  }

  [[gnu::always_inline]] static int32x4_t dot_block(const GroupCodes& w, const GroupCodes& x, size_t part) {
    return vdotq_s32(vdotq_s32(vdupq_n_s32(0), w.v[part], x.v[part]), w.v[part + 2], x.v[part + 2]);
  }

  // Transposed: vector j holds the columns 4j to 4j + 3 of every row.
  static void arrange(int8x16_t a, int8x16_t b, int8x16_t c, int8x16_t d, int8x16_t* out) {
    const int32x4x2_t ac = vzipq_s32(vreinterpretq_s32_s8(a), vreinterpretq_s32_s8(c));
    const int32x4x2_t bd = vzipq_s32(vreinterpretq_s32_s8(b), vreinterpretq_s32_s8(d));
    const int32x4x2_t low = vzipq_s32(ac.val[0], bd.val[0]), high = vzipq_s32(ac.val[1], bd.val[1]);
    out[0] = vreinterpretq_s8_s32(low.val[0]);
    out[1] = vreinterpretq_s8_s32(low.val[1]);
    out[2] = vreinterpretq_s8_s32(high.val[0]);
    out[3] = vreinterpretq_s8_s32(high.val[1]);
  }

  template <size_t M>
  struct Tokens : TokenRows<M> {
    Tokens(const TokenRows<M>& rows, size_t) : TokenRows<M>(rows) {}
  };

  // products[i][q] += the columns of lane kLane of xs[i], which vector kLane of a chunk holds.
  template <int kLane, size_t M>
  [[gnu::always_inline]] static void add(const int8x16_t (*quads)[4 * kChunks], size_t chunk,
                                         const int8x16_t* xs, int32x4_t (*products)[kQuads]) {
#pragma GCC unroll 2
    for (size_t q = 0; q < kQuads; ++q) {
      const int8x16_t w = quads[q][4 * chunk + kLane];
#pragma GCC unroll 4
      for (size_t i = 0; i < M; ++i) products[i][q] = vdotq_laneq_s32(products[i][q], w, xs[i], kLane);
    }
  }

  // products += chunk c of group g, 16 columns.
  template <size_t M>
  [[gnu::always_inline]] static void add_chunk(const int8x16_t (*quads)[4 * kChunks], size_t c,
                                               const Tokens<M>& x, size_t g, int32x4_t (*products)[kQuads]) {
    int8x16_t xs[M];
#pragma GCC unroll 4
    for (size_t i = 0; i < M; ++i) xs[i] = vld1q_s8(x.codes[i] + g * kQ8Group + 16 * c);
    add<0, M>(quads, c, xs, products);
    add<1, M>(quads, c, xs, products);
    add<2, M>(quads, c, xs, products);
    add<3, M>(quads, c, xs, products);
  }

  template <size_t M>
  static void multiply_affine(const AffineTile& tile, size_t quad, const Tokens<M>& x,
                              const int32_t* const* block_sums, size_t count, float32x4_t (*sums)[kQuads]) {
    for (size_t g = 0; g < count; ++g) {
#pragma GCC unroll 2
      for (size_t part = 0; part < kGroupBlocks; ++part) {
        int32x4_t products[M][kQuads];
#pragma GCC unroll 4
        for (size_t i = 0; i < M; ++i) products[i][0] = products[i][1] = vdupq_n_s32(0);
        add_chunk<M>(tile.codes[g] + quad, part, x, g, products);
        add_chunk<M>(tile.codes[g] + quad, part + 2, x, g, products);
        const size_t b = g * kGroupBlocks + part;
#pragma GCC unroll 2
        for (size_t q = 0; q < kQuads; ++q) {
          const float32x4_t scales = vld1q_f32(tile.scales[b] + 4 * (quad + q)),
                            zeros = vld1q_f32(tile.zeros[b] + 4 * (quad + q));
#pragma GCC unroll 4
          for (size_t i = 0; i < M; ++i)
            sums[i][q] = add_block(sums[i][q], products[i][q], zeros,
                                   vdupq_n_f32(static_cast<float>(block_sums[i][b])),
                                   vmulq_n_f32(scales, x.scales[i][g]));
        }
      }
    }
  }

  template <unsigned kBits, size_t M>
  static void multiply(const Tile& tile, size_t quad, const Tokens<M>& x, size_t count,
                       float32x4_t (*out)[kQuads]) {
    float32x4_t sums[M][kQuads];
#pragma GCC unroll 4
    for (size_t i = 0; i < M; ++i) {
      sums[i][0] = out[i][0];
      sums[i][1] = out[i][1];
    }
    for (size_t g = 0; g < count; ++g) {
      int32x4_t products[M][kQuads];
#pragma GCC unroll 4
      for (size_t i = 0; i < M; ++i)
        products[i][0] = products[i][1] = less_zero_points<kBits>(vdupq_n_s32(0), x.sums[i][g]);
#pragma GCC unroll 4
      for (size_t c = 0; c < kChunks; ++c) add_chunk<M>(tile.codes[g] + quad, c, x, g, products);
#pragma GCC unroll 2
      for (size_t q = 0; q < kQuads; ++q) {
        const float32x4_t row_scales = vld1q_f32(tile.scales[g] + 4 * (quad + q));
#pragma GCC unroll 4
        for (size_t i = 0; i < M; ++i)
          sums[i][q] =
              vfmaq_f32(sums[i][q], vcvtq_f32_s32(products[i][q]), vmulq_n_f32(row_scales, x.scales[i][g]));
      }
    }
#pragma GCC unroll 4
    for (size_t i = 0; i < M; ++i) {
      out[i][0] = sums[i][0];
      out[i][1] = sums[i][1];
    }
  }
};

}  // namespace

void linear_q8(const Q8Rows& x, const NBitsMatrix& w, const Init& init, float* y, size_t T, size_t n_begin,
               size_t n_end) {
  product<Sdot>(x, w, init, y, T, n_begin, n_end);
}

void linear_affine(const Q8Rows& x, const NBitsMatrix& w, const float* bias, float* y, size_t T,
                   size_t n_begin, size_t n_end) {
  (T >= kFewTokens ? affine_of_block<Sdot> : affine_of_few<Sdot>)(x, w, bias, y, T, n_begin, n_end);
}

}  // namespace allmem::dotprod
