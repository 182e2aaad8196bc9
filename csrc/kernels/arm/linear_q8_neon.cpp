// 8-bit activations with NEON: quantising them, and their products with 4- or 8-bit weights on processors
// without dot products (Cortex-A53, A72).
//
// Bytes are multiplied to 16 bits and added up there for as long as they fit: eight products of 4-bit codes
// (8 · 15 · 127 = 15,240), two of 8-bit codes (2 · 128 · 127 = 32,512).
#include "kernels/arm/linear_affine.h"
#include "kernels/arm/neon.h"

namespace allmem::neon {

namespace {

struct Smull {
  static constexpr size_t kTokens = 2,
                          kQuads = 1;  // of a tile: eight sums of 16 and 32 bits stay in registers

  // The sums of products of a group, to which 16 columns more are added at a time.
  template <unsigned kBits>
  struct Products {
    int16x8_t sums16;
    int32x4_t sums;
    [[gnu::always_inline]] void add(int8x16_t w, int8x16_t x, size_t chunk) {
      const bool first = kBits == 8 || chunk == 0, last = kBits == 8 || chunk == kChunks - 1;
      const int8x8_t low_w = vget_low_s8(w), low_x = vget_low_s8(x);
      sums16 = vmlal_high_s8(first ? vmull_s8(low_w, low_x) : vmlal_s8(sums16, low_w, low_x), w, x);
      if (last) sums = kBits == 8 && chunk > 0 ? vpadalq_s16(sums, sums16) : vpaddlq_s16(sums16);
    }
  };

  template <unsigned kBits>
  [[gnu::always_inline]] static int32x4_t dot(const GroupCodes& w, const GroupCodes& x) {
    Products<kBits> products = {};
#pragma GCC unroll 4
    for (size_t c = 0; c < kChunks; ++c) products.add(w.v[c], x.v[c], c);
    return products.sums;
  }

  [[gnu::always_inline]] static int32x4_t dot_block(const GroupCodes& w, const GroupCodes& x, size_t part) {
    return products_of_two(w.v[part], x.v[part], w.v[part + 2], x.v[part + 2]);
  }
  // Of 4-bit codes: four products in 16 bits.
  [[gnu::always_inline]] static int32x4_t products_of_two(int8x16_t w0, int8x16_t x0, int8x16_t w1,
                                                          int8x16_t x1) {
    const int16x8_t first = vmlal_high_s8(vmull_s8(vget_low_s8(w0), vget_low_s8(x0)), w0, x0);
    return vpaddlq_s16(vmlal_high_s8(vmlal_s8(first, vget_low_s8(w1), vget_low_s8(x1)), w1, x1));
  }

  // A row a vector.
  static void arrange(int8x16_t a, int8x16_t b, int8x16_t c, int8x16_t d, int8x16_t* out) {
    out[0] = a;
    out[1] = b;
    out[2] = c;
    out[3] = d;
  }

  template <size_t M>
  struct Tokens : TokenRows<M> {
    Tokens(const TokenRows<M>& rows, size_t) : TokenRows<M>(rows) {}
  };

  template <size_t M>
  static void multiply_affine(const AffineTile& tile, size_t quad, const Tokens<M>& x,
                              const int32_t* const* block_sums, size_t count, float32x4_t (*sums)[kQuads]) {
    for (size_t g = 0; g < count; ++g) {
      const int8x16_t* codes = tile.codes[g][quad];
#pragma GCC unroll 2
      for (size_t part = 0; part < kGroupBlocks; ++part) {
        const size_t b = g * kGroupBlocks + part;
        const float32x4_t scales = vld1q_f32(tile.scales[b] + 4 * quad),
                          zeros = vld1q_f32(tile.zeros[b] + 4 * quad);
#pragma GCC unroll 2
        for (size_t i = 0; i < M; ++i) {
          const int8_t* from = x.codes[i] + g * kQ8Group + 16 * part;
          const int8x16_t even = vld1q_s8(from), odd = vld1q_s8(from + kQ8Group / 2);
          int32x4_t products[4];
#pragma GCC unroll 4
          for (size_t r = 0; r < 4; ++r)
            products[r] = products_of_two(codes[4 * part + r], even, codes[4 * (part + 2) + r], odd);
          sums[i][0] = add_block(
              sums[i][0], horizontal_sums(products[0], products[1], products[2], products[3]), zeros,
              vdupq_n_f32(static_cast<float>(block_sums[i][b])), vmulq_n_f32(scales, x.scales[i][g]));
        }
      }
    }
  }

  template <unsigned kBits, size_t M>
  static void multiply(const Tile& tile, size_t quad, const Tokens<M>& x, size_t count,
                       float32x4_t (*out)[kQuads]) {
    float32x4_t sums[M];
#pragma GCC unroll 2
    for (size_t i = 0; i < M; ++i) sums[i] = out[i][0];
    for (size_t g = 0; g < count; ++g) {
      Products<kBits> products[M][4] = {};
#pragma GCC unroll 4
      for (size_t c = 0; c < kChunks; ++c) {
        int8x16_t xs[M];
#pragma GCC unroll 2
        for (size_t i = 0; i < M; ++i) xs[i] = vld1q_s8(x.codes[i] + g * kQ8Group + 16 * c);
#pragma GCC unroll 4
        for (size_t r = 0; r < 4; ++r) {
#pragma GCC unroll 2
          for (size_t i = 0; i < M; ++i) products[i][r].add(tile.codes[g][quad][4 * c + r], xs[i], c);
        }
      }
      const float32x4_t row_scales = vld1q_f32(tile.scales[g] + 4 * quad);
#pragma GCC unroll 2
      for (size_t i = 0; i < M; ++i) {
        const int32x4_t totals = horizontal_sums(products[i][0].sums, products[i][1].sums,
                                                 products[i][2].sums, products[i][3].sums);
        sums[i] = vfmaq_f32(sums[i], vcvtq_f32_s32(less_zero_points<kBits>(totals, x.sums[i][g])),
                            vmulq_n_f32(row_scales, x.scales[i][g]));
      }
    }
#pragma GCC unroll 2
    for (size_t i = 0; i < M; ++i) out[i][0] = sums[i];
  }
};

}  // namespace

void quantise(const float* x, size_t T, size_t K, unsigned bits, const Q8Rows& q) {
  for (size_t g = 0; g < T * (K / kQ8Group); ++g) {
    const float* group = x + g * kQ8Group;
    uint32x4_t largest = vdupq_n_u32(0);
    for (size_t i = 0; i < kQ8Group; i += kLanes) {
      // As integers, the sizes of floats are in order, and those of NaNs come last.
      largest = vmaxq_u32(largest, vreinterpretq_u32_f32(vabsq_f32(vld1q_f32(group + i))));
    }
    const float max = vgetq_lane_f32(vreinterpretq_f32_u32(vdupq_n_u32(vmaxvq_u32(largest))), 0);
    const bool finite = max < __builtin_inff();
    int8x16_t codes[kChunks] = {};
    if (finite && max > kQ8Tiny) {
      const float inverse = 127.0f / max;
      const auto eight = [&](size_t i) {
        const int32x4_t low = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(group + i), inverse));
        const int32x4_t high = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(group + i + kLanes), inverse));
        return vmovn_s16(vmovn_high_s32(vmovn_s32(low), high));
      };
#pragma GCC unroll 4
      for (size_t c = 0; c < kChunks; ++c) codes[c] = vcombine_s8(eight(16 * c), eight(16 * c + 8));
    }
    int16x8_t sums = vdupq_n_s16(0);
#pragma GCC unroll 4
    for (size_t c = 0; c < kChunks; ++c) sums = vpadalq_s8(sums, codes[c]);
    q.sums[g] = -vaddlvq_s16(sums) * (1 << (bits - 1));
    q.scales[g] = finite ? max / 127.0f : __builtin_nanf("");
    int8_t* to = q.codes + g * kQ8Group;
    if (bits == 4) {
      vst1q_s8(to, vuzp1q_s8(codes[0], codes[1]));
      vst1q_s8(to + 16, vuzp1q_s8(codes[2], codes[3]));
      vst1q_s8(to + 32, vuzp2q_s8(codes[0], codes[1]));
      vst1q_s8(to + 48, vuzp2q_s8(codes[2], codes[3]));
    } else {
#pragma GCC unroll 4
      for (size_t c = 0; c < kChunks; ++c) vst1q_s8(to + 16 * c, codes[c]);
    }
  }
}

void linear_q8(const Q8Rows& x, const NBitsMatrix& w, const Init& init, float* y, size_t T, size_t n_begin,
               size_t n_end) {
  product<Smull>(x, w, init, y, T, n_begin, n_end);
}

void linear_affine(const Q8Rows& x, const NBitsMatrix& w, const float* bias, float* y, size_t T,
                   size_t n_begin, size_t n_end) {
  (T >= kFewTokens ? affine_of_block<Smull> : affine_of_few<Smull>)(x, w, bias, y, T, n_begin, n_end);
}

}  // namespace allmem::neon
