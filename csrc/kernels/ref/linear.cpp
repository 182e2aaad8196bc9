// Linear layers, scalar: y = x Wᵀ + b with float32 or block-quantised weights.
#include "kernels/ref/ref.h"

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

}  // namespace

void linear_nbits(const float* x, const NBitsMatrix& w, const float* bias, float* y, size_t T, size_t n_begin,
                  size_t n_end) {
  const size_t K = w.cols, N = w.rows, blocks = K / w.block;
  const size_t row_bytes = K * w.bits / 8, zero_row_bytes = (blocks * w.bits + 7) / 8;
  for (size_t t = 0; t < T; ++t) {
    for (size_t n = n_begin; n < n_end; ++n) {
      double sum = bias ? bias[n] : 0.0;
      for (size_t b = 0; b < blocks; ++b) {
        const unsigned zero =
            w.zero_points ? code_at(w.zero_points + n * zero_row_bytes, b, w.bits) : 1u << (w.bits - 1);
        double block_sum = 0;
        for (size_t k = b * w.block; k < (b + 1) * w.block; ++k) {
          const unsigned code = code_at(w.packed + n * row_bytes, k, w.bits);
          block_sum +=
              double{x[t * K + k]} * (double{static_cast<float>(code)} - double{static_cast<float>(zero)});
        }
        sum += block_sum * double{w.scales[n * blocks + b]};
      }
      y[t * N + n] = static_cast<float>(sum);
    }
  }
}

}  // namespace allmem::ref
