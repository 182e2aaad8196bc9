// Linear layers, scalar: y = x Wᵀ + b with float32 or block-quantised weights.
#include <cmath>

#include "kernels/half.h"
#include "kernels/ref/ref.h"
#include "platform/fused.h"

namespace allmem::ref {

void linear_f32(const float* x, const float* w, const float* bias, float* y, size_t T, size_t K, size_t N,
                size_t n_begin, size_t n_end) {
  for (size_t t = 0; t < T; ++t) {
    for (size_t n = n_begin; n < n_end; ++n) {
      double sum = bias ? bias[n] : 0.0;
      for (size_t k = 0; k < K; ++k) sum += double{x[t * K + k]} * double{w[n * K + k]};
      y[t * N + n] = static_cast<float>(sum);
    }
  }
}

namespace {

// Element i of a row of 4- or 8-bit codes; 4-bit codes sit two a byte, the even one in the low nibble.
unsigned code_at(const uint8_t* row, size_t i, unsigned bits) {
  if (bits == 8) return row[i];
  return (row[i / 2] >> (i % 2 * 4)) & 0xF;
}

float scale_at(const NBitsMatrix& w, size_t i) {
  return w.half_scales == nullptr ? w.scales[i] : from_half(w.half_scales[i]);
}

}  // namespace

void linear_nbits(const float* x, const NBitsMatrix& w, const float* bias, float* y, size_t T, size_t n_begin,
                  size_t n_end) {
  const size_t K = w.cols, N = w.rows, blocks = K / w.block;
  const size_t row_bytes = K * w.bits / 8, zero_row_bytes = (blocks * w.bits + 7) / 8;
  for (size_t t = 0; t < T; ++t) {
    for (size_t n = n_begin; n < n_end; ++n) {
      double sum = bias ? bias[n] : 0.0;
      for (size_t b = 0; b < blocks; ++b) {
        double zero =
            w.zero_points ? code_at(w.zero_points + n * zero_row_bytes, b, w.bits) : 1u << (w.bits - 1);
        if (w.half_zeros != nullptr) zero = double{from_half(w.half_zeros[n * blocks + b])};
        double block_sum = 0;
        for (size_t k = b * w.block; k < (b + 1) * w.block; ++k) {
          const unsigned code = code_at(w.packed + n * row_bytes, k, w.bits);
          block_sum += double{x[t * K + k]} * (double{static_cast<float>(code)} - zero);
        }
        sum += block_sum * double{scale_at(w, n * blocks + b)};
      }
      y[t * N + n] = static_cast<float>(sum);
    }
  }
}

namespace {

// Where column `i` of a group lies among its codes (Q8Rows).
size_t place(size_t i, unsigned bits) { return bits == 8 ? i : i / 2 + i % 2 * (kQ8Group / 2); }

}  // namespace

void quantise(const float* x, size_t T, size_t K, unsigned bits, const Q8Rows& q) {
  for (size_t g = 0; g < T * (K / kQ8Group); ++g) {
    const float* group = x + g * kQ8Group;
    int8_t* codes = q.codes + g * kQ8Group;
    float max = 0;
    for (size_t i = 0; i < kQ8Group; ++i) {
      const float size = std::fabs(group[i]);
      if (!(size <= max)) max = size;
      if (std::isnan(size)) break;
    }
    const bool normal = max > kQ8Tiny && std::isfinite(max);
    const float inverse = normal ? 127.0f / max : 0.0f;
    int sum = 0;
    for (size_t i = 0; i < kQ8Group; ++i) {
      const int code = normal ? static_cast<int>(std::nearbyint(group[i] * inverse)) : 0;
      codes[place(i, bits)] = static_cast<int8_t>(code);
      sum += code;
    }
    q.scales[g] = std::isfinite(max) ? max / 127.0f : NAN;
    q.sums[g] = -sum * (1 << (bits - 1));
  }
}

void dequantise(const int8_t* codes, const float* scales, const float* base, float* x, size_t n) {
  for (size_t i = 0; i < n; ++i) {
    x[i] = fused_multiply_add(static_cast<float>(codes[i]), scales[i / kQ8Group],
                              base == nullptr ? 0.0f : base[i]);
  }
}

void linear_q8(const Q8Rows& x, const NBitsMatrix& w, const Init& init, float* y, size_t T, size_t n_begin,
               size_t n_end) {
  const size_t K = w.cols, groups = K / kQ8Group, row_bytes = K * w.bits / 8;
  for (size_t t = 0; t < T; ++t) {
    for (size_t n = n_begin; n < n_end; ++n) {
      float sum = init.start(t, n, y[t * w.rows + n]);
      for (size_t g = 0; g < groups; ++g) {
        const int8_t* codes = x.codes + t * K + g * kQ8Group;
        int products = x.sums[t * groups + g];
        for (size_t i = 0; i < kQ8Group; ++i) {
          const unsigned weight = code_at(w.packed + n * row_bytes, g * kQ8Group + i, w.bits);
          products += static_cast<int>(weight) * codes[place(i, w.bits)];
        }
        const float scale = scale_at(w, n * (K / w.block) + g * kQ8Group / w.block);
        const float factor = scale * x.scales[t * groups + g];
        sum = fused_multiply_add(static_cast<float>(products), factor, sum);
      }
      y[t * w.rows + n] = sum;
    }
  }
}

void linear_affine(const Q8Rows& x, const NBitsMatrix& w, const float* bias, float* y, size_t T,
                   size_t n_begin, size_t n_end) {
  const size_t K = w.cols, blocks = K / kAffineBlock, groups = K / kQ8Group;
  for (size_t t = 0; t < T; ++t) {
    for (size_t n = n_begin; n < n_end; ++n) {
      float sum = bias == nullptr ? 0.0f : bias[n];
      for (size_t b = 0; b < blocks; ++b) {
        const size_t first = b * kAffineBlock, group = first / kQ8Group;
        int products = 0;
        for (size_t k = first; k < first + kAffineBlock; ++k) {
          const unsigned weight = code_at(w.packed + n * (K / 2), k, 4);
          products += static_cast<int>(weight) * x.codes[t * K + group * kQ8Group + place(k % kQ8Group, 4)];
        }
        const float zeros =
            from_half(w.half_zeros[n * blocks + b]) * static_cast<float>(x.sums[t * blocks + b]);
        const float factor = from_half(w.half_scales[n * blocks + b]) * x.scales[t * groups + group];
        sum = fused_multiply_add(static_cast<float>(products) - zeros, factor, sum);
      }
      y[t * w.rows + n] = sum;
    }
  }
}

}  // namespace allmem::ref

namespace allmem {

void affine_sums(const int8_t* codes, size_t T, size_t K, int32_t* sums) {
  constexpr size_t kEach = kAffineBlock / 2;  // even columns, then as many odd ones further on
  for (size_t i = 0; i < T * K / kAffineBlock; ++i) {
    const int8_t* even = codes + i / 2 * kQ8Group + i % 2 * kEach;
    int sum = 0;
    for (size_t k = 0; k < kEach; ++k) sum += even[k] + even[kQ8Group / 2 + k];
    sums[i] = sum;
  }
}

}  // namespace allmem
