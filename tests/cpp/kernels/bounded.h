// The yardstick of the kernel tests: a value computed in double together with a proven bound on how far
// a float32 computation of it may be off. Tolerances are derived by the same formula that gives the value.
//
// u = 2^-24 is float32's unit roundoff. One operation: |fl(a∘b) - a∘b| <= u |a∘b|. A sum of n terms, in any
// order, blocked or fused: <= γ_n Σ|terms|, γ_n = n u / (1 - n u) (Higham, Accuracy and Stability, 4.4).
// Errors of inputs add up to first order plus their product, which is kept. Double's own rounding (2^-53) is
// below all of this.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "kernels/kernels.h"

namespace allmem::test {

constexpr double kUnit = 0x1p-24;

inline double gamma(size_t n) {
  return static_cast<double>(n) * kUnit / (1 - static_cast<double>(n) * kUnit);
}

struct Bounded {
  double value = 0;
  double error = 0;
  Bounded() = default;
  Bounded(double v, double e = 0) : value(v), error(e) {}  // NOLINT: exact numbers convert
  double size() const { return std::fabs(value) + error; }
};

// `ulps` extra roundings of u each, for functions that are not correctly rounded.
inline Bounded rounded(double value, double propagated, double ulps = 1) {
  return {value, propagated + ulps * kUnit * (std::fabs(value) + propagated)};
}
inline Bounded operator+(Bounded a, Bounded b) { return rounded(a.value + b.value, a.error + b.error); }
inline Bounded operator-(Bounded a, Bounded b) { return rounded(a.value - b.value, a.error + b.error); }
inline Bounded operator*(Bounded a, Bounded b) {
  return rounded(a.value * b.value, a.size() * b.error + b.size() * a.error);
}

// Σ a_i b_i for i < n, in whatever order; `extra` counts further roundings (a scale, a bias).
template <typename A, typename B>
Bounded dot(size_t n, A a, B b, size_t extra = 0) {
  double value = 0, size = 0, propagated = 0;
  for (size_t i = 0; i < n; ++i) {
    const Bounded x = a(i), y = b(i);
    value += x.value * y.value;
    size += x.size() * y.size();
    propagated += x.size() * y.error + y.size() * x.error;
  }
  return {value, propagated + gamma(n + 1 + extra) * size};
}

// A float32 exp, sigmoid or similar is allowed 3 ulp = 6u here; every kernel's own is documented to be
// better.
constexpr double kFunctionUnits = 6;

inline double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
inline Bounded sigmoid(Bounded x) {
  return rounded(sigmoid(x.value), 0.25 * x.error, kFunctionUnits);
}  // |σ'| <= 1/4
inline Bounded silu(Bounded x) {  // |silu'| < 1.1
  return rounded(x.value * sigmoid(x.value), 1.1 * x.error, kFunctionUnits + 1);
}
inline double silu_slope(double x) { return sigmoid(x) * (1 + x * (1 - sigmoid(x))); }
inline Bounded silu_slope(
    Bounded x) {  // |silu''| <= 1/2. 1 - σ loses relative but not absolute precision: a size of 1 + |x|
  const double s = sigmoid(x.value);
  return {silu_slope(x.value), 0.5 * x.error + (2 * kFunctionUnits + 4) * kUnit * s * (1 + x.size())};
}

// Softmax attention of one query: appends y[d] = Σ_s w_s v(s, d) / Σ_s w_s for d < dim, w_s = exp(score_s -
// max). With every score off by at most δ (its own error, and the subtraction of a maximum that is off as
// well), a weight is off by the factor exp(2δ) and 6u for exp itself; numerator and denominator are sums of n
// terms, rescaled at most once a term by an online softmax (8u each).
template <typename V>
void softmax_average(const std::vector<Bounded>& scores, size_t dim, V v, std::vector<Bounded>& out) {
  double largest = -INFINITY, smallest = INFINITY, error = 0, total = 0;
  for (const Bounded& score : scores) {
    largest = std::max(largest, score.value);
    smallest = std::min(smallest, score.value);
    error = std::max(error, score.error);
  }
  const double delta = error + kUnit * (largest - smallest);
  const size_t n = scores.size();
  const double relative = 2 * (std::expm1(2 * delta) + kFunctionUnits * kUnit + gamma(n + 8 * (n + 2)));
  for (const Bounded& score : scores) total += std::exp(score.value - largest);
  for (size_t d = 0; d < dim; ++d) {
    double sum = 0, size = 0, propagated = 0;
    for (size_t s = 0; s < n; ++s) {
      const double weight = std::exp(scores[s].value - largest) / total;
      const Bounded value = v(s, d);
      sum += weight * value.value;
      size += weight * value.size();
      propagated += weight * value.error;
    }
    out.push_back({sum, propagated + relative * size + 0x1p-126});
  }
}

// Deterministic on every platform: std::normal_distribution is not.
class Random {
 public:
  explicit Random(uint32_t seed) : engine_(seed) {}
  double uniform(double low, double high) { return low + (high - low) * (engine_() / 4294967296.0); }
  size_t index(size_t below) { return engine_() % below; }
  std::vector<float> floats(size_t n, double limit = 1) {
    std::vector<float> out(n);
    for (float& x : out) x = static_cast<float>(uniform(-limit, limit));
    return out;
  }
  std::vector<uint8_t> bytes(size_t n) {
    std::vector<uint8_t> out(n);
    for (uint8_t& x : out) x = static_cast<uint8_t>(engine_() >> 13);
    return out;
  }

 private:
  std::mt19937 engine_;
};

inline std::vector<const Kernels*> all_kernels() {
  const auto available = available_kernels();
  return {available.begin(), available.end()};
}

// The tables that differ in one kernel: every implementation of it once.
template <typename F>
std::vector<const Kernels*> kernels_by(F Kernels::*kernel) {
  std::vector<const Kernels*> tables;
  for (const Kernels* table : all_kernels()) {
    const auto same = [&](const Kernels* other) { return other->*kernel == table->*kernel; };
    if (std::none_of(tables.begin(), tables.end(), same)) tables.push_back(table);
  }
  return tables;
}

// Every got[i] lies within want[i]; one check per array, reporting the worst element.
inline void check_within(const std::string& what, std::span<const float> got, std::span<const Bounded> want) {
  REQUIRE(got.size() == want.size());
  size_t worst = 0;
  double worst_ratio = 0;
  bool fine = true;
  for (size_t i = 0; i < got.size(); ++i) {
    const double difference = std::fabs(double{got[i]} - want[i].value);
    if (!(difference <= want[i].error)) fine = false;  // also when NaN
    const double ratio = difference / (want[i].error + 1e-300);
    if (!(ratio <= worst_ratio)) worst = i, worst_ratio = ratio;
  }
  if (got.empty()) return;
  CHECK_MESSAGE(fine, what, ": element ", worst, " is ", got[worst], ", not ", want[worst].value, " +- ",
                want[worst].error);
}

}  // namespace allmem::test
