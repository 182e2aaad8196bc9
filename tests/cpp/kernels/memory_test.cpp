// The memory kernels of every table against the paper's formulas in double and against numeric gradients.
#include <functional>

#include "bounded.h"

using namespace allmem;
using namespace allmem::test;

namespace {

// The fast weights of one head with everything the kernels touch, all of it random.
struct Head {
  size_t D, h;
  std::vector<float> w[3], s[3], g[3], r[3], norm0[3];  // gate, up, down

  Head(size_t dim, size_t hidden, Random& random) : D(dim), h(hidden) {
    for (size_t i = 0; i < 3; ++i) {
      w[i] = random.floats(D * h, 0.5);
      s[i] = random.floats(D * h, 0.1);
      g[i] = random.floats(D * h, 0.1);
      for (size_t row = 0; row < rows(i); ++row) {
        r[i].push_back(static_cast<float>(random.uniform(0.5, 1.5)));
        norm0[i].push_back(static_cast<float>(random.uniform(0.1, 3)));
      }
    }
  }
  size_t rows(size_t i) const { return i == 2 ? D : h; }
  size_t cols(size_t i) const { return i == 2 ? h : D; }
  MemoryHead view() {
    return {D,           h,           w[0].data(), w[1].data(), w[2].data(), s[0].data(), s[1].data(),
            s[2].data(), g[0].data(), g[1].data(), g[2].data(), r[0].data(), r[1].data(), r[2].data()};
  }
};

// A number of double precision arithmetic or a Bounded: the same formulas serve as value and as tolerance.
using Matrix = std::vector<Bounded>;

Matrix scaled_by_rows(const Head& head, size_t i) {
  Matrix out;
  for (size_t j = 0; j < head.w[i].size(); ++j)
    out.push_back(Bounded(head.w[i][j]) * Bounded(head.r[i][j / head.cols(i)]));
  return out;
}

Matrix plain(const std::vector<float>& w) { return {w.begin(), w.end()}; }

struct Forward {
  Matrix a, u, m, out;
};

// Roundings that a sum of n products has beyond those of float32. Fast products are exact to 2^-16 = 256 u,
// and each is a sum of three.
using Extra = size_t (*)(size_t n);
size_t exact_products(size_t /*n*/) { return 0; }
size_t fast_products(size_t n) { return 256 + 2 * n; }

// M_W(z) = z + W_d (silu(W_g z) ⊙ (W_u z))
Forward forward(size_t D, size_t h, const Matrix& gate, const Matrix& up, const Matrix& down, const float* z,
                Extra extra) {
  Forward f;
  const auto in = [&](size_t d) { return Bounded(z[d]); };
  for (size_t i = 0; i < h; ++i) {
    f.a.push_back(dot(
        D, [&](size_t d) { return gate[i * D + d]; }, in, extra(D)));
    f.u.push_back(dot(
        D, [&](size_t d) { return up[i * D + d]; }, in, extra(D)));
    f.m.push_back(silu(f.a[i]) * f.u[i]);
  }
  for (size_t d = 0; d < D; ++d)
    f.out.push_back(Bounded(z[d]) + dot(
                                        h, [&](size_t i) { return down[d * h + i]; },
                                        [&](size_t i) { return f.m[i]; }, 1 + extra(h)));
  return f;
}

// n vectors of `size` floats, `stride` apart; the gaps hold NaN, so that reading them cannot go unseen.
std::vector<float> strided(Random& random, size_t n, size_t size, size_t stride, double limit = 1) {
  std::vector<float> out(n == 0 ? 0 : (n - 1) * stride + size, std::nanf(""));
  for (size_t t = 0; t < n; ++t) {
    const auto values = random.floats(size, limit);
    std::copy(values.begin(), values.end(), out.begin() + static_cast<long>(t * stride));
  }
  return out;
}

void check_read(size_t D, size_t h, size_t n, size_t q_stride, size_t y_stride) {
  for (const Kernels* kernels : all_kernels()) {
    Random random(static_cast<uint32_t>(D * 1000 + h * 10 + n));
    Head head(D, h, random);
    const auto q = strided(random, n, D, q_stride);
    std::vector<float> y(n == 0 ? 0 : (n - 1) * y_stride + D, 7.0f), scratch(kernels->memory_scratch(D, h));
    kernels->memory_read(head.view(), q.data(), q_stride, y.data(), y_stride, n, scratch.data());
    std::vector<float> got;
    Matrix want;
    bool gaps_untouched = true;
    for (size_t t = 0; t < n; ++t) {
      const auto out = forward(D, h, plain(head.w[0]), plain(head.w[1]), plain(head.w[2]),
                               q.data() + t * q_stride, exact_products)
                           .out;
      want.insert(want.end(), out.begin(), out.end());
      got.insert(got.end(), y.begin() + static_cast<long>(t * y_stride),
                 y.begin() + static_cast<long>(t * y_stride + D));
      for (size_t i = t * y_stride + D; i < (t + 1) * y_stride && i < y.size(); ++i)
        gaps_untouched = gaps_untouched && y[i] == 7.0f;
    }
    const std::string what = std::string(kernels->name) + " D=" + std::to_string(D) +
                             " h=" + std::to_string(h) + " n=" + std::to_string(n);
    check_within(what, got, want);
    CHECK_MESSAGE(gaps_untouched, what);
  }
}

void check_accumulate_by(decltype(Kernels::memory_accumulate) Kernels::*kernel, Extra extra, size_t D,
                         size_t h, size_t n, size_t k_stride, size_t v_stride, size_t eta_stride) {
  for (const Kernels* kernels : kernels_by(kernel)) {
    Random random(static_cast<uint32_t>(D * 1000 + h * 10 + n));
    Head head(D, h, random);
    const Head before = head;
    const auto k = strided(random, n, D, k_stride), v = strided(random, n, D, v_stride);
    const auto eta = strided(random, n, 1, eta_stride);
    std::vector<float> scratch(kernels->memory_scratch(D, h));
    (kernels->*kernel)(head.view(), k.data(), k_stride, v.data(), v_stride, eta.data(), eta_stride, n,
                       scratch.data());

    const Matrix hat[3] = {scaled_by_rows(head, 0), scaled_by_rows(head, 1), scaled_by_rows(head, 2)};
    // Per token the factors of the three outer products: rows [token][row], columns [token][column].
    std::vector<Matrix> row[3];
    std::vector<Matrix> column[3];
    for (size_t t = 0; t < n; ++t) {
      const float* z = k.data() + t * k_stride;
      const Forward f = forward(D, h, hat[0], hat[1], hat[2], z, extra);
      Matrix e, to_gate, to_up, zs(z, z + D);
      for (size_t d = 0; d < D; ++d)
        e.push_back(Bounded(eta[t * eta_stride]) * (f.out[d] - Bounded(v[t * v_stride + d])));
      for (size_t i = 0; i < h; ++i) {
        const Bounded dm = dot(
            D, [&](size_t d) { return hat[2][d * h + i]; }, [&](size_t d) { return e[d]; }, extra(D));
        to_up.push_back(dm * silu(f.a[i]));
        to_gate.push_back(dm * f.u[i] * silu_slope(f.a[i]));
      }
      row[0].push_back(to_gate), row[1].push_back(to_up), row[2].push_back(e);
      column[0].push_back(zs), column[1].push_back(zs), column[2].push_back(f.m);
    }
    for (size_t i = 0; i < 3; ++i) {
      Matrix want;
      for (size_t j = 0; j < before.g[i].size(); ++j) {
        const size_t r = j / before.cols(i), c = j % before.cols(i);
        const Bounded old = before.g[i][j];
        // The old value is one more term of the sum.
        want.push_back(dot(
            n + 1, [&](size_t t) { return t < n ? row[i][t][r] : old; },
            [&](size_t t) { return t < n ? column[i][t][c] : Bounded(1); }, extra(n)));
      }
      check_within(std::string(kernels->name) + " matrix " + std::to_string(i) + " D=" + std::to_string(D) +
                       " h=" + std::to_string(h) + " n=" + std::to_string(n),
                   head.g[i], want);
      CHECK(head.w[i] == before.w[i]);
      CHECK(head.s[i] == before.s[i]);
    }
  }
}

void check_accumulate(size_t D, size_t h, size_t n, size_t k_stride, size_t v_stride, size_t eta_stride) {
  check_accumulate_by(&Kernels::memory_accumulate, exact_products, D, h, n, k_stride, v_stride, eta_stride);
  check_accumulate_by(&Kernels::memory_accumulate_fast, fast_products, D, h, n, k_stride, v_stride,
                      eta_stride);
}

}  // namespace

TEST_CASE("memory_read computes M_W with the weights as they are, for every size and stride") {
  for (const size_t D : {1, 2, 5, 8, 9, 16, 24, 33, 64}) {
    for (const size_t h : {1, 3, 8, 17, 48}) check_read(D, h, 3, D + 3, D + 5);
  }
  for (const size_t n : {0, 1, 2, 4, 31, 32, 33, 70}) check_read(32, 64, n, 40, 32);
  check_read(128, 256, 5, 128, 128);
}

TEST_CASE("memory_accumulate adds the closed-form gradient, for every size and stride") {
  for (const size_t D : {1, 2, 5, 8, 9, 16, 24, 33}) {
    for (const size_t h : {1, 3, 8, 17, 48})
      for (const size_t n : {3, 9}) check_accumulate(D, h, n, D + 2, D + 7, 3);
  }
  for (const size_t n : {0, 1, 2, 4, 31, 32, 33, 70}) check_accumulate(16, 32, n, 16, 24, 1);
  check_accumulate(64, 128, 6, 64, 64, 2);
  check_accumulate(128, 256, 32, 128, 128, 1);
  check_accumulate(300, 40, 20, 300, 300, 1);
}

// Central differences D(ε) of the loss in double. Their truncation error is c ε², which D(2ε) - D(ε) = 3 c ε²
// measures; their rounding error is below 2^-50 |loss| / ε. What the kernel itself may be off comes on top:
// its gradient is a sum of some 3 (D + h) roundings relative to its terms, which the largest entry bounds
// from below.
TEST_CASE("memory_accumulate is the gradient of the loss, by finite differences") {
  const size_t D = 6, h = 10, n = 5;
  for (const Kernels* kernels : all_kernels()) {
    Random random(77);
    Head head(D, h, random);
    for (auto& g : head.g) std::fill(g.begin(), g.end(), 0.0f);
    const auto k = random.floats(n * D), v = random.floats(n * D);
    auto eta = random.floats(n);
    for (float& x : eta) x = std::fabs(x);
    std::vector<float> scratch(kernels->memory_scratch(D, h));
    kernels->memory_accumulate(head.view(), k.data(), D, v.data(), D, eta.data(), 1, n, scratch.data());

    std::vector<double> hat[3];
    for (size_t i = 0; i < 3; ++i)
      for (size_t j = 0; j < head.w[i].size(); ++j)
        hat[i].push_back(double{head.w[i][j]} * double{head.r[i][j / head.cols(i)]});
    const auto loss = [&] {  // Σ_t η_t ½‖M_Ŵ(k_t) - v_t‖²
      double total = 0;
      for (size_t t = 0; t < n; ++t) {
        std::vector<double> m(h);
        for (size_t i = 0; i < h; ++i) {
          double a = 0, u = 0;
          for (size_t d = 0; d < D; ++d)
            a += hat[0][i * D + d] * double{k[t * D + d]}, u += hat[1][i * D + d] * double{k[t * D + d]};
          m[i] = a * sigmoid(a) * u;
        }
        for (size_t d = 0; d < D; ++d) {
          double out = double{k[t * D + d]} - double{v[t * D + d]};
          for (size_t i = 0; i < h; ++i) out += hat[2][d * h + i] * m[i];
          total += 0.5 * double{eta[t]} * out * out;
        }
      }
      return total;
    };
    for (size_t i = 0; i < 3; ++i) {
      double largest = 0;
      for (const float g : head.g[i]) largest = std::max(largest, std::fabs(double{g}));
      Matrix want;
      for (double& weight : hat[i]) {
        const auto difference = [&](double epsilon) {
          const double old = weight;
          weight = old + epsilon;
          const double above = loss();
          weight = old - epsilon;
          const double below = loss();
          weight = old;
          return (above - below) / (2 * epsilon);
        };
        const double epsilon = 1e-4, near = difference(epsilon), far = difference(2 * epsilon);
        const double numeric_error = std::fabs(far - near) + 0x1p-50 * loss() / epsilon;
        want.push_back({near, numeric_error + gamma(3 * (D + h)) * largest});
      }
      check_within(std::string(kernels->name) + " matrix " + std::to_string(i), head.g[i], want);
    }
  }
}

TEST_CASE("a block of tokens cut anywhere accumulates the same gradient up to rounding") {
  const size_t D = 16, h = 24, n = 37;
  for (const Kernels* kernels : all_kernels()) {
    for (size_t cut = 0; cut <= n; cut += 5) {
      Random random(5);
      Head whole(D, h, random);
      Head parts = whole;
      const auto k = random.floats(n * D), v = random.floats(n * D), eta = random.floats(n);
      std::vector<float> scratch(kernels->memory_scratch(D, h));
      kernels->memory_accumulate(whole.view(), k.data(), D, v.data(), D, eta.data(), 1, n, scratch.data());
      kernels->memory_accumulate(parts.view(), k.data(), D, v.data(), D, eta.data(), 1, cut, scratch.data());
      kernels->memory_accumulate(parts.view(), k.data() + cut * D, D, v.data() + cut * D, D, eta.data() + cut,
                                 1, n - cut, scratch.data());
      for (size_t i = 0; i < 3; ++i) {
        double size = 0;  // an upper estimate of Σ|terms|: n times the largest entry
        for (const float g : whole.g[i]) size = std::max(size, std::fabs(double{g}) * static_cast<double>(n));
        Matrix want;
        for (const float g : whole.g[i]) want.push_back({g, 2 * gamma(n + D + h) * size});
        check_within(kernels->name, parts.g[i], want);
      }
    }
  }
}

// A session learns in multiples of 32 tokens, so that in fast mode no split of a stream changes a bit.
TEST_CASE("tokens learned in one call or in pieces of 32 give the same bits") {
  constexpr size_t kPiece = 32;
  for (const Kernels* kernels : all_kernels()) {
    for (const auto& size : {std::pair<size_t, size_t>{16, 24}, {64, 128}, {80, 48}, {33, 70}}) {
      const size_t D = size.first, h = size.second;
      for (const size_t pieces : {1, 2, 4, 5}) {
        const size_t n = pieces * kPiece;
        Random random(6);
        Head whole(D, h, random);
        Head parts = whole;
        const auto k = random.floats(n * D), v = random.floats(n * D), eta = random.floats(n);
        std::vector<float> scratch(kernels->memory_scratch(D, h));
        const auto learn = [&](Head& head, size_t begin, size_t count) {
          kernels->memory_accumulate_fast(head.view(), k.data() + begin * D, D, v.data() + begin * D, D,
                                          eta.data() + begin, 1, count, scratch.data());
        };
        learn(whole, 0, n);
        for (size_t begin = 0; begin < n; begin += kPiece) learn(parts, begin, kPiece);
        CAPTURE(kernels->name);
        CAPTURE(D);
        CAPTURE(n);
        for (size_t i = 0; i < 3; ++i) CHECK(whole.g[i] == parts.g[i]);
      }
    }
  }
}

// Relative error: γ_cols of the squares, halved by the root, and three single roundings.
TEST_CASE("memory_row_scales restores the norms that the rows had at first, and is 0 for a row of zeros") {
  for (const Kernels* kernels : all_kernels()) {
    for (const size_t D : {1, 7, 8, 33}) {
      for (const size_t h : {1, 5, 16}) {
        Random random(21);
        Head head(D, h, random);
        std::fill_n(head.w[0].begin(), D, 0.0f);
        kernels->memory_row_scales(head.view(), head.norm0[0].data(), head.norm0[1].data(),
                                   head.norm0[2].data());
        for (size_t i = 0; i < 3; ++i) {
          Matrix want;
          for (size_t row = 0; row < head.rows(i); ++row) {
            double squares = 0;
            for (size_t c = 0; c < head.cols(i); ++c)
              squares += std::pow(double{head.w[i][row * head.cols(i) + c]}, 2);
            const double exact = squares == 0 ? 0 : double{head.norm0[i][row]} / std::sqrt(squares);
            want.push_back({exact, (gamma(head.cols(i)) / 2 + 3 * kUnit) * exact});
          }
          check_within(std::string(kernels->name) + " matrix " + std::to_string(i), head.r[i], want);
        }
      }
    }
  }
}

TEST_CASE("memory_write decays the momentum, rescales, steps, and clears the gradient") {
  for (const Kernels* kernels : all_kernels()) {
    for (const size_t D : {1, 7, 8, 33}) {
      for (const size_t h : {1, 5, 16}) {
        Random random(31);
        Head head(D, h, random);
        const Head before = head;
        const float beta = 0.7f;
        kernels->memory_write(head.view(), beta);
        for (size_t i = 0; i < 3; ++i) {
          Matrix momentum, weight;
          for (size_t j = 0; j < before.w[i].size(); ++j) {
            momentum.push_back(Bounded(beta) * Bounded(before.s[i][j]) + Bounded(before.g[i][j]));
            weight.push_back(Bounded(before.r[i][j / before.cols(i)]) * Bounded(before.w[i][j]) -
                             momentum.back());
          }
          check_within(std::string(kernels->name) + " momentum", head.s[i], momentum);
          check_within(std::string(kernels->name) + " weight", head.w[i], weight);
          CHECK(head.g[i] == std::vector<float>(head.g[i].size()));
        }
      }
    }
  }
}
