// Vectors of floats, for kernels that are written once and compiled for each instruction set: what a vector
// is and the functions that have instructions of their own come from the processor's header, whose names the
// rest of this folder uses. + - * / are the compiler's own.
//
// Everything in this folder has internal linkage, so that no code escapes the instruction set of the file
// that includes it.
#pragma once

#include <cstddef>

#if defined(__aarch64__)
#include "kernels/arm/neon_math.h"
#else
#include "kernels/x86/avx2_math.h"
#endif

namespace allmem::simd {
namespace {

// eˣ within 1 ulp (0.90 at worst over 80 million values); +inf above 88.73, gradual underflow to 0 below
// -87.4, NaN for NaN. x = n ln 2 + r with |r| <= ln(2)/2 (ln 2 in two parts, so that r is exact to its last
// bit), e^r by its Taylor polynomial of degree 7, whose first omitted term is 0.347^8/8! = 5e-9 < 2^-27.
inline Vector exp(Vector x) {
  x = max(broadcast(-104.0f), min(broadcast(89.0f), x));  // in this order, a NaN stays one
  const Vector n = nearest(x * broadcast(1.44269504f));
  Vector r = subtract_product(n, broadcast(0.693145751953125f), x);
  r = subtract_product(n, broadcast(1.42860682030941723e-6f), r);
  Vector p = broadcast(1.0f / 5040);
  p = add_product(p, r, broadcast(1.0f / 720));
  p = add_product(p, r, broadcast(1.0f / 120));
  p = add_product(p, r, broadcast(1.0f / 24));
  p = add_product(p, r, broadcast(1.0f / 6));
  p = add_product(p, r, broadcast(0.5f));
  p = add_product(p, r, broadcast(1.0f));
  p = add_product(p, r, broadcast(1.0f));
  return times_power_of_two(p, n);
}

inline Vector sigmoid(Vector x) { return broadcast(1.0f) / (broadcast(1.0f) + exp(-x)); }

inline Vector silu(Vector x) { return x / (broadcast(1.0f) + exp(-x)); }

// log(1 + eˣ) = max(x, 0) + log(1 + y), y = e^-|x| <= 1. With s = y/(2 + y) <= 1/3, log(1 + y) = 2 atanh(s)
// = 2s (1 + s²/3 + s⁴/5 + ...), cut where s^16/17 = 1.4e-9: full relative precision also as y goes to 0.
inline Vector softplus(Vector x) {
  const Vector y = exp(min(x, -x)), s = y / (broadcast(2.0f) + y), s2 = s * s;
  Vector p = broadcast(2.0f / 15);
  p = add_product(p, s2, broadcast(2.0f / 13));
  p = add_product(p, s2, broadcast(2.0f / 11));
  p = add_product(p, s2, broadcast(2.0f / 9));
  p = add_product(p, s2, broadcast(2.0f / 7));
  p = add_product(p, s2, broadcast(2.0f / 5));
  p = add_product(p, s2, broadcast(2.0f / 3));
  p = add_product(p, s2, broadcast(2.0f));
  return add_product(p, s, max(broadcast(0.0f), x));
}

// y[i] = f(x[i]...) over n values: whole vectors, then the first lanes of one more.
template <typename F>
inline void for_each(const float* x, float* y, size_t n, F f) {
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, f(load(x + i)));
  if (i < n) store_first(y + i, n - i, f(load_first(x + i, n - i)));
}

template <typename F>
inline void for_each(const float* a, const float* b, float* y, size_t n, F f) {
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, f(load(a + i), load(b + i)));
  if (i < n) store_first(y + i, n - i, f(load_first(a + i, n - i), load_first(b + i, n - i)));
}

inline void fill(float* y, size_t n, float value) {
  for (size_t i = 0; i < n; ++i) y[i] = value;
}

inline void copy(const float* x, float* y, size_t n) {
  for (size_t i = 0; i < n; ++i) y[i] = x[i];
}

}  // namespace
}  // namespace allmem::simd
