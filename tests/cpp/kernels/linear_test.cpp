// Linear layers of every table against sums in double.
#include "bounded.h"

using namespace allmem;
using namespace allmem::test;

namespace {

constexpr float kUntouched = 12345.0f;

struct Shape {
  size_t T, K, N, n_begin, n_end;
};

std::string describe(const Kernels& kernels, const Shape& s) {
  return std::string(kernels.name) + " T=" + std::to_string(s.T) + " K=" + std::to_string(s.K) +
         " N=" + std::to_string(s.N) + " rows " + std::to_string(s.n_begin) + ".." + std::to_string(s.n_end);
}

// Checks y on [n_begin, n_end) against `weight(n, k)`, and that nothing else was written.
template <typename Weight>
void check_linear(const std::string& what, const Shape& s, const std::vector<float>& x, const float* bias,
                  const std::vector<float>& y, size_t extra_roundings, Weight weight) {
  std::vector<float> got;
  std::vector<Bounded> want;
  bool outside_untouched = true;
  for (size_t t = 0; t < s.T; ++t) {
    for (size_t n = 0; n < s.N; ++n) {
      if (n < s.n_begin || n >= s.n_end) {
        outside_untouched = outside_untouched && y[t * s.N + n] == kUntouched;
        continue;
      }
      got.push_back(y[t * s.N + n]);
      // The bias is one more term of the sum: a kernel may start from it or add it last.
      want.push_back(dot(
          s.K + 1, [&](size_t k) { return k < s.K ? x[t * s.K + k] : 1.0f; },
          [&](size_t k) { return k < s.K ? Bounded(weight(n, k)) : Bounded(bias ? bias[n] : 0.0f); },
          extra_roundings));
    }
  }
  check_within(what, got, want);
  CHECK_MESSAGE(outside_untouched, what);
}

void check_f32(const Kernels& kernels, const Shape& s, bool with_bias) {
  Random random(static_cast<uint32_t>(s.T * 7919 + s.K * 31 + s.N));
  const auto x = random.floats(s.T * s.K), w = random.floats(s.N * s.K), bias = random.floats(s.N);
  std::vector<float> y(s.T * s.N, kUntouched);
  const float* b = with_bias ? bias.data() : nullptr;
  kernels.linear_f32(x.data(), w.data(), b, y.data(), s.T, s.K, s.N, s.n_begin, s.n_end);
  check_linear(describe(kernels, s), s, x, b, y, 0, [&](size_t n, size_t k) { return w[n * s.K + k]; });
}

// A quantised matrix whose exact values the test knows: code and zero point of every element.
struct Quantised {
  NBitsMatrix view;
  std::vector<uint8_t> packed, zeros;
  std::vector<float> scales;

  Quantised(Random& random, size_t rows, size_t cols, size_t block, unsigned bits, bool with_zeros) {
    const size_t blocks = cols / block;
    packed = random.bytes(rows * cols * bits / 8);
    if (with_zeros) zeros = random.bytes(rows * ((blocks * bits + 7) / 8));
    scales = random.floats(rows * blocks, 0.1);
    view = {packed.data(), scales.data(), with_zeros ? zeros.data() : nullptr, rows, cols, block, bits};
  }
  static unsigned element(const std::vector<uint8_t>& bytes, size_t row, size_t row_bytes, size_t i,
                          unsigned bits) {
    if (bits == 8) return bytes[row * row_bytes + i];
    const unsigned byte = bytes[row * row_bytes + i / 2];
    return i % 2 == 0 ? byte & 15 : byte >> 4;
  }
  // The weight. Its "error" is what makes it honest for kernels that subtract the zero point after
  // multiplying: the terms of their sums are (|code| + |zero|)·scale·|x|, larger than the weight; γ_K then
  // applies to those.
  Bounded weight(size_t n, size_t k) const {
    const size_t blocks = view.cols / view.block, b = k / view.block;
    const double code = element(packed, n, view.cols * view.bits / 8, k, view.bits);
    const double zero = zeros.empty() ? (view.bits == 4 ? 8 : 128)
                                      : element(zeros, n, (blocks * view.bits + 7) / 8, b, view.bits);
    const double scale = scales[n * blocks + b];
    return {(code - zero) * scale, gamma(view.cols + 4) * (code + zero) * std::fabs(scale)};
  }
};

void check_nbits(const Kernels& kernels, const Shape& s, size_t block, unsigned bits, bool with_zeros,
                 bool with_bias) {
  Random random(static_cast<uint32_t>(s.T * 7919 + s.K * 31 + s.N + block * 3 + bits));
  const Quantised w(random, s.N, s.K, block, bits, with_zeros);
  const auto x = random.floats(s.T * s.K), bias = random.floats(s.N);
  std::vector<float> y(s.T * s.N, kUntouched);
  const float* b = with_bias ? bias.data() : nullptr;
  kernels.linear_nbits(x.data(), w.view, b, y.data(), s.T, s.n_begin, s.n_end);
  check_linear(describe(kernels, s) + " block=" + std::to_string(block) + " bits=" + std::to_string(bits) +
                   (with_zeros ? " zero points" : ""),
               s, x, b, y, 4, [&](size_t n, size_t k) { return w.weight(n, k); });
}

}  // namespace

TEST_CASE("linear_f32 equals the sum in double, for every tail of tokens, columns and rows") {
  for (const Kernels* kernels : all_kernels()) {
    for (const size_t K : {1, 2, 7, 8, 9, 15, 16, 31, 33, 64, 100}) {
      for (const size_t T : {1, 2, 3, 4, 5, 7, 8, 13}) {
        for (const size_t N : {1, 2, 3, 4, 5, 6, 7, 11})
          check_f32(*kernels, {T, K, N, 0, N}, (T + N) % 2 == 0);
      }
    }
    for (size_t T = 1; T <= 70; ++T) check_f32(*kernels, {T, 40, 9, 0, 9}, true);
    check_f32(*kernels, {1, 3072, 5, 0, 5}, false);
    check_f32(*kernels, {6, 5003, 5, 0, 5}, false);
  }
}

TEST_CASE("linear_f32 writes its slice of the rows and nothing else") {
  for (const Kernels* kernels : all_kernels()) {
    for (const size_t T : {1, 6}) {
      for (size_t begin = 0; begin <= 9; ++begin)
        for (size_t end = begin; end <= 9; ++end) check_f32(*kernels, {T, 24, 9, begin, end}, true);
    }
  }
}

TEST_CASE("linear_f32 of no tokens or no rows does nothing, and of no columns gives the bias") {
  for (const Kernels* kernels : all_kernels()) {
    check_f32(*kernels, {0, 8, 4, 0, 4}, true);
    check_f32(*kernels, {3, 8, 4, 2, 2}, true);
    check_f32(*kernels, {3, 0, 4, 0, 4}, true);
    check_f32(*kernels, {1, 0, 4, 0, 4}, false);
  }
}

TEST_CASE("linear_nbits equals the dequantised sum in double, for every block size, width and tail") {
  for (const Kernels* kernels : all_kernels()) {
    for (const unsigned bits : {4u, 8u}) {
      for (const size_t block : {16, 32, 64, 128, 256}) {
        for (size_t blocks = 1; blocks <= 9; ++blocks) {
          for (const size_t T : {1, 2, 5}) {
            for (const bool zeros : {false, true}) {
              const Shape shape{T, block * blocks, 5, 0, 5};
              check_nbits(*kernels, shape, block, bits, zeros, blocks % 2 == 0);
            }
          }
        }
      }
      for (size_t T = 1; T <= 70; ++T) check_nbits(*kernels, {T, 96, 7, 0, 7}, 32, bits, T % 3 == 0, true);
    }
  }
}

TEST_CASE("linear_nbits is right for rows longer than any tile") {
  for (const Kernels* kernels : all_kernels()) {
    for (const unsigned bits : {4u, 8u}) {
      for (const size_t K : {1024, 4096, 4128, 9024}) {
        for (const size_t T : {1, 4}) {
          check_nbits(*kernels, {T, K, 6, 0, 6}, 32, bits, false, true);
          check_nbits(*kernels, {T, K, 6, 0, 6}, 16, bits, true, false);
        }
      }
    }
  }
}

TEST_CASE("linear_nbits writes its slice of the rows and nothing else") {
  for (const Kernels* kernels : all_kernels()) {
    for (const unsigned bits : {4u, 8u}) {
      for (const size_t T : {0, 1, 6}) {
        for (size_t begin = 0; begin <= 9; begin += 2)
          for (size_t end = begin; end <= 9; ++end)
            check_nbits(*kernels, {T, 64, 9, begin, end}, 32, bits, false, true);
      }
    }
  }
}
