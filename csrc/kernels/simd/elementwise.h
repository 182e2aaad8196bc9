// Normalisation, elementwise functions, 8-bit codes as floats again, and RoPE. All are bound by memory, not
// by arithmetic.
#pragma once

#include "kernels/simd/vector.h"

namespace allmem::simd {
namespace {

inline void rms_norm(const float* x, const float* weight, float* y, size_t rows, size_t cols, float epsilon) {
  for (size_t r = 0; r < rows; ++r, x += cols, y += cols) {
    Vector squares = broadcast(0);
    size_t c = 0;
    const auto add = [&](Vector values) { squares = add_product(values, values, squares); };
    for (; c + kLanes <= cols; c += kLanes) add(load(x + c));
    if (c < cols) add(load_first(x + c, cols - c));
    const Vector mean = broadcast(sum(squares) / static_cast<float>(cols) + epsilon);
    const Vector scale = broadcast(1.0f) / square_root(mean);
    for_each(x, weight, y, cols, [&](Vector value, Vector factor) { return value * scale * factor; });
  }
}

inline void add(const float* a, const float* b, float* y, size_t n) {
  for_each(a, b, y, n, [](Vector p, Vector q) { return p + q; });
}

inline void mul(const float* a, const float* b, float* y, size_t n) {
  for_each(a, b, y, n, [](Vector p, Vector q) { return p * q; });
}

inline void sigmoid(const float* x, float* y, size_t n) {
  for_each(x, y, n, [](Vector v) { return sigmoid(v); });
}

inline void silu(const float* x, float* y, size_t n) {
  for_each(x, y, n, [](Vector v) { return silu(v); });
}

inline void softplus(const float* x, float* y, size_t n) {
  for_each(x, y, n, [](Vector v) { return softplus(v); });
}

inline void silu_mul(const float* gate, const float* up, float* y, size_t n) {
  for_each(gate, up, y, n, [](Vector g, Vector u) { return silu(g) * u; });
}

inline void dequantise(const int8_t* codes, const float* scales, const float* base, float* x, size_t n) {
  for (size_t i = 0; i < n; i += kLanes) {
    const size_t count = smaller(kLanes, n - i);
    const Vector start = base == nullptr ? broadcast(0) : load_first(base + i, count);
    store_first(x + i, count, add_product(load_codes(codes + i), broadcast(scales[i / kQ8Group]), start));
  }
}

inline void rotate(const float* x, const float* cos, const float* sin, float* y, size_t T, size_t heads,
                   size_t D) {
  const size_t half = D / 2;
  for (size_t t = 0; t < T; ++t, cos += half, sin += half) {
    for (size_t h = 0; h < heads; ++h, x += D, y += D) {
      for (size_t i = 0; i < half; i += kLanes) {
        const size_t count = smaller(kLanes, half - i);
        const Vector re = load_first(x + i, count), im = load_first(x + i + half, count);
        const Vector c = load_first(cos + i, count), s = load_first(sin + i, count);
        store_first(y + i, count, add_product(re, c, -(im * s)));
        store_first(y + i + half, count, add_product(im, c, re * s));
      }
    }
  }
}

}  // namespace
}  // namespace allmem::simd
