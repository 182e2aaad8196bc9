// Normalisation, elementwise functions and RoPE of every table against double.
#include <algorithm>
#include <limits>

#include "bounded.h"

using namespace allmem;
using namespace allmem::test;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Values where activation functions differ in kind: random ones, every exponent, both ends of exp's range,
// zeros.
std::vector<float> interesting_values() {
  Random random(5);
  std::vector<float> values = random.floats(20000, 20);
  const auto more = random.floats(20000, 110);
  values.insert(values.end(), more.begin(), more.end());
  for (int exponent = -149; exponent < 128; ++exponent) {
    for (const double mantissa : {1.0, 1.37, 1.999}) {
      for (const double sign : {-1.0, 1.0}) {
        values.push_back(static_cast<float>(sign * std::min(std::ldexp(mantissa, exponent), 3.4e38)));
      }
    }
  }
  for (const float x : {0.0f, -0.0f, 87.3f, 88.72f, 88.73f, 88.8f, 103.9f, 104.1f}) {
    values.push_back(x);
    values.push_back(-x);
  }
  return values;
}

// Checks y = f(x) to `units` u of relative error, beside what may be lost below float32's normal range.
template <typename F>
void check_function(const std::string& what, void (*kernel)(const float*, float*, size_t), double units,
                    F f) {
  const auto x = interesting_values();
  std::vector<float> y(x.size());
  kernel(x.data(), y.data(), x.size());
  std::vector<Bounded> want;
  for (const float value : x) {
    const double exact = f(double{value});
    // A sigmoid may be flushed to 0 below 2^-126; silu multiplies that loss by |x|.
    want.push_back(
        {exact, units * kUnit * std::fabs(exact) + 0x1p-126 * std::max(1.0, std::fabs(double{value}))});
  }
  check_within(what, y, want);
}

void check_in_place(const std::string& what, void (*kernel)(const float*, float*, size_t)) {
  Random random(3);
  for (size_t n = 0; n <= 40; ++n) {
    const auto x = random.floats(n + 1, 5);
    std::vector<float> y(n + 1, 7.0f), in_place = x;
    kernel(x.data(), y.data(), n);
    kernel(in_place.data(), in_place.data(), n);
    CHECK_MESSAGE(y[n] == 7.0f, what, " wrote past n=", n);
    in_place[n] = 7.0f;
    CHECK_MESSAGE(y == in_place, what, " in place, n=", n);
  }
}

}  // namespace

// 1/(1 + e): exp to 3 ulp (6u) damped by e/(1+e) <= 1, one rounding each for sum and quotient: 8u.
TEST_CASE("sigmoid is exact to 8u over float32's range") {
  for (const Kernels* k : all_kernels())
    check_function(k->name, k->sigmoid, 8, [](double x) { return sigmoid(x); });
}

TEST_CASE("silu is exact to 9u over float32's range") {
  for (const Kernels* k : all_kernels())
    check_function(k->name, k->silu, 9, [](double x) { return x * sigmoid(x); });
}

// log1p(e) has condition <= 1 in e: 6u from exp, 6u for log1p itself, one for the final sum.
TEST_CASE("softplus is exact to 13u over float32's range") {
  for (const Kernels* k : all_kernels())
    check_function(k->name, k->softplus, 13,
                   [](double x) { return std::max(x, 0.0) + std::log1p(std::exp(-std::fabs(x))); });
}

TEST_CASE("activation functions have the right limits and pass NaN on") {
  const float x[] = {kInfinity, -kInfinity, std::numeric_limits<float>::quiet_NaN()};
  for (const Kernels* k : all_kernels()) {
    // Once in a full vector, once alone, so that both the main loop and the tail are seen.
    for (const size_t n : {size_t{1}, size_t{8}}) {
      for (size_t i = 0; i < 3; ++i) {
        CAPTURE(k->name);
        CAPTURE(x[i]);
        const std::vector<float> in(n, x[i]);
        std::vector<float> sig(n), soft(n), silu(n);
        k->sigmoid(in.data(), sig.data(), n);
        k->softplus(in.data(), soft.data(), n);
        k->silu(in.data(), silu.data(), n);
        if (i == 0) CHECK((sig[0] == 1.0f && soft[0] == kInfinity && silu[0] == kInfinity));
        if (i == 1) CHECK((sig[0] == 0.0f && soft[0] == 0.0f));
        if (i == 2) CHECK((std::isnan(sig[0]) && std::isnan(soft[0]) && std::isnan(silu[0])));
      }
    }
  }
}

TEST_CASE("elementwise functions write n values and work in place") {
  for (const Kernels* k : all_kernels()) {
    check_in_place(std::string(k->name) + " sigmoid", k->sigmoid);
    check_in_place(std::string(k->name) + " silu", k->silu);
    check_in_place(std::string(k->name) + " softplus", k->softplus);
  }
}

TEST_CASE("add and mul are correctly rounded; silu_mul is silu times up") {
  Random random(9);
  for (const Kernels* k : all_kernels()) {
    for (size_t n = 0; n <= 70; ++n) {
      const auto a = random.floats(n, 8), b = random.floats(n, 8);
      std::vector<float> sum(n), product(n), gated(n), sum_in_place = a, product_in_place = b,
                                                       gated_in_place = b;
      k->add(a.data(), b.data(), sum.data(), n);
      k->mul(a.data(), b.data(), product.data(), n);
      k->silu_mul(a.data(), b.data(), gated.data(), n);
      k->add(sum_in_place.data(), b.data(), sum_in_place.data(), n);
      k->mul(a.data(), product_in_place.data(), product_in_place.data(), n);
      k->silu_mul(a.data(), gated_in_place.data(), gated_in_place.data(), n);
      std::vector<Bounded> want;
      bool rounded_right = true;
      for (size_t i = 0; i < n; ++i) {
        rounded_right = rounded_right && sum[i] == a[i] + b[i] && product[i] == a[i] * b[i];
        want.push_back(silu(Bounded(a[i])) * Bounded(b[i]));
      }
      CHECK_MESSAGE(rounded_right, k->name, " n=", n);
      CHECK((sum == sum_in_place && product == product_in_place && gated == gated_in_place));
      check_within(std::string(k->name) + " silu_mul", gated, want);
    }
  }
}

// Relative error: γ_cols of the mean square, halved by the root, and six single roundings.
TEST_CASE("rms_norm divides each row by its root mean square, also in place") {
  Random random(11);
  for (const Kernels* k : all_kernels()) {
    for (const size_t cols : {1, 2, 7, 8, 9, 16, 31, 64, 100, 128, 1024, 1031}) {
      for (const size_t rows : {0, 1, 3}) {
        const float epsilon = 1e-6f;
        const auto x = random.floats(rows * cols, 30), weight = random.floats(cols, 2);
        std::vector<float> y(rows * cols), in_place = x;
        k->rms_norm(x.data(), weight.data(), y.data(), rows, cols, epsilon);
        k->rms_norm(in_place.data(), weight.data(), in_place.data(), rows, cols, epsilon);
        CHECK(y == in_place);
        std::vector<Bounded> want;
        for (size_t r = 0; r < rows; ++r) {
          double squares = 0;
          for (size_t c = 0; c < cols; ++c) squares += double{x[r * cols + c]} * double{x[r * cols + c]};
          const double rms = std::sqrt(squares / static_cast<double>(cols) + double{epsilon});
          for (size_t c = 0; c < cols; ++c) {
            const double exact = double{x[r * cols + c]} / rms * double{weight[c]};
            want.push_back({exact, (gamma(cols) / 2 + 6 * kUnit) * std::fabs(exact)});
          }
        }
        check_within(std::string(k->name) + " cols=" + std::to_string(cols), y, want);
      }
    }
  }
}

TEST_CASE("rms_norm of a row of zeros is zero") {
  for (const Kernels* k : all_kernels()) {
    const std::vector<float> x(20), weight(20, 1.0f);
    std::vector<float> y(20, 1.0f);
    k->rms_norm(x.data(), weight.data(), y.data(), 1, 20, 1e-6f);
    CHECK(y == x);
  }
}

TEST_CASE("rotate turns each pair (i, i + D/2) by its own angle, also in place") {
  Random random(13);
  for (const Kernels* k : all_kernels()) {
    for (const size_t D : {2, 6, 8, 10, 16, 18, 32, 34, 64, 128}) {
      const size_t T = 3, heads = 2, half = D / 2;
      const auto x = random.floats(T * heads * D, 4);
      std::vector<float> cos(T * half), sin(T * half), y(x.size()), in_place = x;
      for (size_t i = 0; i < cos.size(); ++i) {
        const double angle = random.uniform(-7, 7);
        cos[i] = static_cast<float>(std::cos(angle));
        sin[i] = static_cast<float>(std::sin(angle));
      }
      k->rotate(x.data(), cos.data(), sin.data(), y.data(), T, heads, D);
      k->rotate(in_place.data(), cos.data(), sin.data(), in_place.data(), T, heads, D);
      CHECK(y == in_place);
      std::vector<Bounded> want(x.size());
      for (size_t t = 0; t < T; ++t) {
        for (size_t h = 0; h < heads; ++h) {
          for (size_t i = 0; i < half; ++i) {
            const size_t at = (t * heads + h) * D + i;
            const Bounded c = double{cos[t * half + i]}, s = double{sin[t * half + i]};
            const Bounded re = double{x[at]}, im = double{x[at + half]};
            want[at] = dot(
                2, [&](size_t j) { return j == 0 ? re : im; },
                [&](size_t j) { return j == 0 ? c : Bounded(-s.value); });
            want[at + half] = dot(
                2, [&](size_t j) { return j == 0 ? im : re; }, [&](size_t j) { return j == 0 ? c : s; });
          }
        }
      }
      check_within(std::string(k->name) + " D=" + std::to_string(D), y, want);
    }
  }
}
