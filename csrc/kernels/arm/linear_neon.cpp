// Linear layers with NEON: float32 weights, and 4- or 8-bit weights unpacked on the fly.
//
// One token is bound by memory: each byte of the weights is read once, in order, and each code is converted
// and multiplied in registers. A block of tokens is bound by arithmetic: a tile of weights is unpacked once
// into the first-level cache and used for every token.
#include "kernels/arm/neon.h"
#include "kernels/arm/neon_math.h"

namespace allmem::neon {

namespace {

void fill_with_bias(const float* bias, float* y, size_t T, size_t N, size_t n_begin, size_t n_end) {
  for (size_t t = 0; t < T; ++t)
    for (size_t n = n_begin; n < n_end; ++n) y[t * N + n] = bias ? bias[n] : 0.0f;
}

// 16 values (code - zero), four a vector.
struct Sixteen {
  float32x4_t v[4];
};

Sixteen sixteen_values(const uint8_t* packed, unsigned bits, float32x4_t zero) {
  uint8x16_t codes;
  if (bits == 8) {
    codes = vld1q_u8(packed);
  } else {
    const uint8x8_t pairs = vld1_u8(packed);
    const uint8x8x2_t both = vzip_u8(vand_u8(pairs, vdup_n_u8(0xF)), vshr_n_u8(pairs, 4));
    codes = vcombine_u8(both.val[0], both.val[1]);
  }
  const uint16x8_t low = vmovl_u8(vget_low_u8(codes)), high = vmovl_high_u8(codes);
  const auto four = [&](uint32x4_t wide) { return vsubq_f32(vcvtq_f32_u32(wide), zero); };
  return {{four(vmovl_u16(vget_low_u16(low))), four(vmovl_high_u16(low)), four(vmovl_u16(vget_low_u16(high))),
           four(vmovl_high_u16(high))}};
}

float32x4_t zero_point(const NBitsMatrix& w, size_t n, size_t b) {
  if (w.half_zeros != nullptr) return vdupq_n_f32(float_of(w.half_zeros[n * (w.cols / w.block) + b]));
  if (w.zero_points == nullptr) return vdupq_n_f32(static_cast<float>(1 << (w.bits - 1)));
  const size_t row_bytes = (w.cols / w.block * w.bits + 7) / 8;
  const uint8_t* row = w.zero_points + n * row_bytes;
  const int zero = w.bits == 8 ? row[b] : (row[b / 2] >> (b % 2 * 4)) & 0xF;
  return vdupq_n_f32(static_cast<float>(zero));
}

constexpr size_t kTileRows = 8,
                 kTileCols = 512;  // 16 KiB of floats: a quarter or half of the first-level cache

// out[k - k_begin] = (code - zero) * scale for the columns k_begin <= k < k_end of row n, whole blocks.
void unpack_row(const NBitsMatrix& w, size_t n, size_t k_begin, size_t k_end, float* out) {
  const uint8_t* row = w.packed + n * (w.cols * w.bits / 8);
  const size_t scales = n * (w.cols / w.block);
  for (size_t block = k_begin; block < k_end; block += w.block) {
    const float scale = scale_at(w, scales + block / w.block);
    const float32x4_t zero = zero_point(w, n, block / w.block);
    for (size_t k = block; k < block + w.block; k += 16, out += 16) {
      const Sixteen values = sixteen_values(row + k * w.bits / 8, w.bits, zero);
      for (size_t i = 0; i < 4; ++i) vst1q_f32(out + i * kLanes, vmulq_n_f32(values.v[i], scale));
    }
  }
}

void add_product_of_tokens(const float* x, const NBitsMatrix& w, float* y, size_t T, size_t n_begin,
                           size_t n_end) {
  float tile[kTileRows * kTileCols];
  for (size_t n = n_begin; n < n_end; n += kTileRows) {
    const size_t rows = smaller(kTileRows, n_end - n);
    for (size_t k = 0; k < w.cols; k += kTileCols) {
      const size_t cols = smaller(kTileCols, w.cols - k);
      for (size_t r = 0; r < rows; ++r) unpack_row(w, n + r, k, k + cols, tile + r * kTileCols);
      gemm_nt(x + k, w.cols, tile, kTileCols, y + n, w.rows, T, rows, cols);
    }
  }
}

// Σ_k x[k] w[n, k]: the sum of each block, then times its scale.
template <unsigned kBits>
float dot_row(const float* x, const NBitsMatrix& w, size_t n) {
  const uint8_t* packed = w.packed + n * (w.cols * kBits / 8);
  const size_t scales = n * (w.cols / w.block);
  float32x4_t even = vdupq_n_f32(0), odd = even;
  for (size_t b = 0; b < w.cols / w.block; ++b) {
    const float32x4_t zero = zero_point(w, n, b);
    float32x4_t sums[4] = {vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0)};
    for (size_t k = 0; k < w.block; k += 16, packed += 2 * kBits, x += 16) {
      const Sixteen values = sixteen_values(packed, kBits, zero);
#pragma GCC unroll 4
      for (size_t i = 0; i < 4; ++i) sums[i] = vfmaq_f32(sums[i], values.v[i], vld1q_f32(x + i * kLanes));
    }
    const float scale = scale_at(w, scales + b);
    even = vfmaq_n_f32(even, vaddq_f32(sums[0], sums[2]), scale);
    odd = vfmaq_n_f32(odd, vaddq_f32(sums[1], sums[3]), scale);
  }
  return vaddvq_f32(vaddq_f32(even, odd));
}

}  // namespace

void linear_f32(const float* x, const float* w, const float* bias, float* y, size_t T, size_t K, size_t N,
                size_t n_begin, size_t n_end) {
  fill_with_bias(bias, y, T, N, n_begin, n_end);
  gemm_nt(x, K, w + n_begin * K, K, y + n_begin, N, T, n_end - n_begin, K);
}

void linear_nbits(const float* x, const NBitsMatrix& w, const float* bias, float* y, size_t T, size_t n_begin,
                  size_t n_end) {
  if (T == 0) return;  // x may then be null
  fill_with_bias(bias, y, T, w.rows, n_begin, n_end);
  if (T != 1) return add_product_of_tokens(x, w, y, T, n_begin, n_end);
  const auto dot = w.bits == 8 ? dot_row<8> : dot_row<4>;
  for (size_t n = n_begin; n < n_end; ++n) y[n] += dot(x, w, n);
}

}  // namespace allmem::neon
