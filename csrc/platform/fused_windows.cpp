// Windows: MinGW-w64's fma() and fmaf() round more than once, so these do without.
#include <bit>
#include <cmath>
#include <cstdint>

#include "platform/fused.h"

namespace allmem {

// In double the product is exact. The sum is rounded to odd there: it has 29 bits more than a float, so that
// rounding it to one is as if the exact sum were rounded (Boldo and Melquiond, 2008).
float fused_multiply_add(float a, float b, float c) {
  const double product = double{a} * b, addend = c, sum = product + addend;
  const double part = sum - product;
  const double rest = (product - (sum - part)) + (addend - part);  // what rounding took from the sum, exactly
  const auto bits = std::bit_cast<uint64_t>(sum);
  if (rest == 0 || !std::isfinite(sum) || (bits & 1) != 0) return static_cast<float>(sum);
  const bool grows = (rest > 0) == (sum > 0);  // the exact sum is farther from 0
  return static_cast<float>(std::bit_cast<double>(grows ? bits + 1 : bits - 1));
}

// Dekker's product: each factor in two halves, whose products are exact.
double product_rest(double a, double b) {
  constexpr double kSplit = 134217729;  // 2^27 + 1
  const double a_high = kSplit * a - (kSplit * a - a), a_low = a - a_high;
  const double b_high = kSplit * b - (kSplit * b - b), b_low = b - b_high;
  return ((a_high * b_high - a * b) + a_high * b_low + a_low * b_high) + a_low * b_low;
}

}  // namespace allmem
