// Elementwise functions, scalar.
#include <cmath>

#include "kernels/ref/ref.h"

namespace allmem::ref {

namespace {

// For x below -88, exp(-x) is infinite and the quotient 0 (or -0): the right limit, so nothing is clamped.
float sigmoid_of(float x) { return 1.0f / (1.0f + std::exp(-x)); }
float silu_of(float x) { return x / (1.0f + std::exp(-x)); }

}  // namespace

void add(const float* a, const float* b, float* y, size_t n) {
  for (size_t i = 0; i < n; ++i) y[i] = a[i] + b[i];
}

void mul(const float* a, const float* b, float* y, size_t n) {
  for (size_t i = 0; i < n; ++i) y[i] = a[i] * b[i];
}

void sigmoid(const float* x, float* y, size_t n) {
  for (size_t i = 0; i < n; ++i) y[i] = sigmoid_of(x[i]);
}

void silu(const float* x, float* y, size_t n) {
  for (size_t i = 0; i < n; ++i) y[i] = silu_of(x[i]);
}

void softplus(const float* x, float* y, size_t n) {
  // log(1 + eˣ) = max(x, 0) + log(1 + e^-|x|): no overflow for large x, full precision for very negative x.
  for (size_t i = 0; i < n; ++i) y[i] = (x[i] < 0 ? 0.0f : x[i]) + std::log1p(std::exp(-std::fabs(x[i])));
}

void silu_mul(const float* gate, const float* up, float* y, size_t n) {
  for (size_t i = 0; i < n; ++i) y[i] = silu_of(gate[i]) * up[i];
}

}  // namespace allmem::ref
