// Linear layers of every table against sums in double.
#include <cstring>

#include "bounded.h"
#include "kernels/half.h"
#include "platform/fused.h"

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

// A slice of the rows is written, and nothing else.
void check_outside(const std::string& what, const Shape& s, const std::vector<float>& y) {
  bool outside_untouched = true;
  for (size_t t = 0; t < s.T; ++t)
    for (size_t n = 0; n < s.N; ++n)
      if (n < s.n_begin || n >= s.n_end)
        outside_untouched = outside_untouched && y[t * s.N + n] == kUntouched;
  CHECK_MESSAGE(outside_untouched, what);
}

// Checks y on [n_begin, n_end) against `weight(n, k)`, and that nothing else was written.
template <typename Weight>
void check_linear(const std::string& what, const Shape& s, const std::vector<float>& x, const float* bias,
                  const std::vector<float>& y, size_t extra_roundings, Weight weight) {
  std::vector<float> got;
  std::vector<Bounded> want;
  for (size_t t = 0; t < s.T; ++t) {
    for (size_t n = s.n_begin; n < s.n_end; ++n) {
      got.push_back(y[t * s.N + n]);
      // The bias is one more term of the sum: a kernel may start from it or add it last.
      want.push_back(dot(
          s.K + 1, [&](size_t k) { return k < s.K ? x[t * s.K + k] : 1.0f; },
          [&](size_t k) { return k < s.K ? Bounded(weight(n, k)) : Bounded(bias ? bias[n] : 0.0f); },
          extra_roundings));
    }
  }
  check_within(what, got, want);
  check_outside(what, s, y);
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
  std::vector<uint16_t> half_scales;  // the same, if the matrix has them so

  Quantised(Random& random, size_t rows, size_t cols, size_t block, unsigned bits, bool with_zeros,
            bool half) {
    const size_t blocks = cols / block;
    packed = random.bytes(rows * cols * bits / 8);
    if (with_zeros) zeros = random.bytes(rows * ((blocks * bits + 7) / 8));
    scales = random.floats(rows * blocks, 0.1);
    view = {packed.data(), scales.data(), with_zeros ? zeros.data() : nullptr, rows, cols, block, bits};
    if (!half) return;
    for (float& scale : scales) {  // either sign, from 2^-24 to below 1/8: some are subnormal
      half_scales.push_back(
          static_cast<uint16_t>(random.index(2) << 15 | (1 + random.index((12 << 10) - 1))));
      scale = from_half(half_scales.back());
    }
    view.scales = nullptr;
    view.half_scales = half_scales.data();
  }
  static unsigned element(const std::vector<uint8_t>& bytes, size_t row, size_t row_bytes, size_t i,
                          unsigned bits) {
    if (bits == 8) return bytes[row * row_bytes + i];
    const unsigned byte = bytes[row * row_bytes + i / 2];
    return i % 2 == 0 ? byte & 15 : byte >> 4;
  }
  // Of a matrix without zero points: the code less their default, and its scale.
  int code(size_t n, size_t k) const {
    return static_cast<int>(element(packed, n, view.cols * view.bits / 8, k, view.bits)) -
           (1 << (view.bits - 1));
  }
  float scale(size_t n, size_t k) const { return scales[(n * view.cols + k) / view.block]; }
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
                 bool with_bias, bool half) {
  Random random(static_cast<uint32_t>(s.T * 7919 + s.K * 31 + s.N + block * 3 + bits));
  const Quantised w(random, s.N, s.K, block, bits, with_zeros, half);
  const auto x = random.floats(s.T * s.K), bias = random.floats(s.N);
  std::vector<float> y(s.T * s.N, kUntouched);
  const float* b = with_bias ? bias.data() : nullptr;
  kernels.linear_nbits(x.data(), w.view, b, y.data(), s.T, s.n_begin, s.n_end);
  check_linear(describe(kernels, s) + " block=" + std::to_string(block) + " bits=" + std::to_string(bits) +
                   (with_zeros ? " zero points" : "") + (half ? " float16 scales" : ""),
               s, x, b, y, 4, [&](size_t n, size_t k) { return w.weight(n, k); });
}

// With scales of either type.
void check_nbits(const Kernels& kernels, const Shape& s, size_t block, unsigned bits, bool with_zeros,
                 bool with_bias) {
  for (const bool half : {false, true}) check_nbits(kernels, s, block, bits, with_zeros, with_bias, half);
}

// Activations as `quantise` must make them: the contract leaves no choice but the order of the codes.
struct Activations {
  std::vector<int8_t> codes;
  std::vector<float> scales;
  std::vector<int32_t> sums;

  Activations(size_t T, size_t K)
      : codes(T * K, 77), scales(T * K / kQ8Group, kUntouched), sums(T * K / kQ8Group, 77) {}
  Q8Rows view() { return {codes.data(), scales.data(), sums.data()}; }
  int code(size_t group, size_t i, unsigned bits) const {
    return codes[group * kQ8Group + (bits == 8 ? i : i / 2 + i % 2 * (kQ8Group / 2))];
  }
};

void check_quantise(const Kernels& kernels, const std::vector<float>& x, size_t T, size_t K, unsigned bits) {
  Activations q(T, K);
  kernels.quantise(x.data(), T, K, bits, q.view());
  bool codes_right = true, rest_right = true;
  for (size_t g = 0; g < T * K / kQ8Group; ++g) {
    float max = 0;
    for (size_t i = 0; i < kQ8Group; ++i) max = std::fmax(max, std::fabs(x[g * kQ8Group + i]));
    const float inverse = max > 0x1p-100f ? 127.0f / max : 0.0f;
    int sum = 0;
    for (size_t i = 0; i < kQ8Group; ++i) {
      const int code = static_cast<int>(std::nearbyint(x[g * kQ8Group + i] * inverse));
      codes_right = codes_right && q.code(g, i, bits) == code;
      sum += code;
    }
    rest_right = rest_right && q.scales[g] == max / 127.0f && q.sums[g] == -sum * (1 << (bits - 1));
  }
  CHECK_MESSAGE(codes_right, kernels.name);
  CHECK_MESSAGE(rest_right, kernels.name);
}

// Against the exact sum of the quantised activations; and against that of the activations themselves, from
// which each may be half a step away.
void check_q8(const Kernels& kernels, const Shape& s, size_t block, unsigned bits, bool with_bias,
              bool with_beta, bool half) {
  Random random(static_cast<uint32_t>(s.T * 7919 + s.K * 31 + s.N + block * 3 + bits));
  const Quantised w(random, s.N, s.K, block, bits, false, half);
  const auto x = random.floats(s.T * s.K), bias = random.floats(s.N);
  const auto before = random.floats(s.T * s.N), beta = random.floats(s.T);
  std::vector<float> y(s.T * s.N, kUntouched), rounded_x(x.size());
  std::vector<double> exact_x(x.size());
  Activations q(s.T, s.K);
  kernels.quantise(x.data(), s.T, s.K, bits, q.view());
  for (size_t i = 0; i < x.size(); ++i) {
    const size_t group = i / kQ8Group;
    exact_x[i] = double{q.scales[group]} * q.code(group, i % kQ8Group, bits);
    rounded_x[i] = static_cast<float>(exact_x[i]);
    // Half a step, and the roundings of the factor 127/max, of the product and of the scale: 3 of at most
    // 127.
    CHECK(std::fabs(exact_x[i] - double{x[i]}) <= q.scales[group] * (0.5 + 127 * 3.0 * kUnit));
  }
  const float* b = with_bias ? bias.data() : nullptr;
  const auto start = [&](size_t t, size_t n) {
    return with_beta ? before[t * s.N + n] * beta[t] : with_bias ? bias[n] : 0.0f;
  };
  if (with_beta) {
    for (size_t t = 0; t < s.T; ++t)
      for (size_t n = s.n_begin; n < s.n_end; ++n) y[t * s.N + n] = before[t * s.N + n];
  }
  kernels.linear_q8(q.view(), w.view, {.bias = b, .beta = with_beta ? beta.data() : nullptr}, y.data(), s.T,
                    s.n_begin, s.n_end);
  // Bit for bit what kernels.h says, so that it depends neither on the table nor on T.
  bool same = true;
  for (size_t t = 0; t < s.T; ++t) {
    for (size_t n = s.n_begin; n < s.n_end; ++n) {
      float sum = start(t, n);
      for (size_t g = 0; g < s.K / kQ8Group; ++g) {
        int products = 0;
        for (size_t i = 0; i < kQ8Group; ++i)
          products += w.code(n, g * kQ8Group + i) * q.code(t * s.K / kQ8Group + g, i, bits);
        sum = fused_multiply_add(static_cast<float>(products),
                                 w.scale(n, g * kQ8Group) * q.scales[t * s.K / kQ8Group + g], sum);
      }
      same = same && y[t * s.N + n] == sum;
    }
  }
  CHECK_MESSAGE(same, describe(kernels, s), " q8 block=", block, " bits=", bits,
                half ? " float16 scales" : "", with_beta ? " onto what was there" : "");
  if (with_beta) return check_outside(describe(kernels, s), s, y);
  // One rounding more for each term: rounded_x for exact_x.
  check_linear(describe(kernels, s) + " q8 block=" + std::to_string(block) + " bits=" + std::to_string(bits),
               s, rounded_x, b, y, 6, [&](size_t n, size_t k) { return w.weight(n, k); });
}

void check_q8(const Kernels& kernels, const Shape& s, size_t block, unsigned bits, bool with_bias) {
  for (const bool half : {false, true}) check_q8(kernels, s, block, bits, with_bias, false, half);
  check_q8(kernels, s, block, bits, with_bias, true, false);
}

// A matrix in blocks of 32 with zero points, none of which need be a code.
struct Affine {
  NBitsMatrix view;
  std::vector<uint8_t> packed;
  std::vector<uint16_t> scales, zeros;

  Affine(Random& random, size_t rows, size_t cols) : packed(random.bytes(rows * cols / 2)) {
    for (size_t i = 0; i < rows * cols / kAffineBlock; ++i) {
      // scales as in Quantised; zero points of either sign, from 2^-9 to below 2^6
      scales.push_back(static_cast<uint16_t>(random.index(2) << 15 | (1 + random.index((12 << 10) - 1))));
      zeros.push_back(static_cast<uint16_t>(random.index(2) << 15 | ((6 << 10) + random.index(15 << 10))));
    }
    view = {.packed = packed.data(),
            .scales = nullptr,
            .zero_points = nullptr,
            .rows = rows,
            .cols = cols,
            .block = kAffineBlock,
            .bits = 4,
            .half_scales = scales.data(),
            .half_zeros = zeros.data()};
  }
  int code(size_t n, size_t k) const {
    const unsigned byte = packed[(n * view.cols + k) / 2];
    return static_cast<int>(k % 2 == 0 ? byte & 15 : byte >> 4);
  }
  float scale(size_t n, size_t b) const { return from_half(scales[n * view.cols / kAffineBlock + b]); }
  float zero(size_t n, size_t b) const { return from_half(zeros[n * view.cols / kAffineBlock + b]); }
  // As Quantised::weight.
  Bounded weight(size_t n, size_t k) const {
    const size_t b = k / kAffineBlock;
    const double size = code(n, k) + std::fabs(double{zero(n, b)});
    return {(code(n, k) - double{zero(n, b)}) * double{scale(n, b)},
            gamma(view.cols + 4) * size * std::fabs(double{scale(n, b)})};
  }
};

void check_affine(const Kernels& kernels, const Shape& s, bool with_bias) {
  Random random(static_cast<uint32_t>(s.T * 7919 + s.K * 31 + s.N));
  const Affine w(random, s.N, s.K);
  const auto x = random.floats(s.T * s.K), bias = random.floats(s.N);
  const float* b = with_bias ? bias.data() : nullptr;
  const size_t groups = s.K / kQ8Group, blocks = s.K / kAffineBlock;
  Activations q(s.T, s.K);
  kernels.quantise(x.data(), s.T, s.K, 4, q.view());
  std::vector<int32_t> sums(s.T * blocks, 77);
  affine_sums(q.codes.data(), s.T, s.K, sums.data());
  std::vector<float> y(s.T * s.N, kUntouched);
  kernels.linear_affine({q.codes.data(), q.scales.data(), sums.data()}, w.view, b, y.data(), s.T, s.n_begin,
                        s.n_end);
  // Bit for bit what kernels.h says.
  bool same = true;
  for (size_t t = 0; t < s.T; ++t) {
    for (size_t n = s.n_begin; n < s.n_end; ++n) {
      float sum = with_bias ? bias[n] : 0.0f;
      for (size_t block = 0; block < blocks; ++block) {
        int products = 0, codes = 0;
        for (size_t i = 0; i < kAffineBlock; ++i) {
          const size_t k = block * kAffineBlock + i;
          const int code = q.code(t * groups + k / kQ8Group, k % kQ8Group, 4);
          products += w.code(n, k) * code;
          codes += code;
        }
        same = same && sums[t * blocks + block] == codes;
        const float less = static_cast<float>(products) - w.zero(n, block) * static_cast<float>(codes);
        sum = fused_multiply_add(less, w.scale(n, block) * q.scales[t * groups + block / 2], sum);
      }
      same = same && y[t * s.N + n] == sum;
    }
  }
  CHECK_MESSAGE(same, describe(kernels, s), " affine");
  std::vector<float> rounded_x(x.size());
  for (size_t i = 0; i < x.size(); ++i)
    rounded_x[i] = q.scales[i / kQ8Group] * static_cast<float>(q.code(i / kQ8Group, i % kQ8Group, 4));
  const auto weight = [&](size_t n, size_t k) { return w.weight(n, k); };
  check_linear(describe(kernels, s) + " affine", s, rounded_x, b, y, 6, weight);
  // and in float32
  std::fill(y.begin(), y.end(), kUntouched);
  kernels.linear_nbits(x.data(), w.view, b, y.data(), s.T, s.n_begin, s.n_end);
  check_linear(describe(kernels, s) + " affine, float32", s, x, b, y, 4, weight);
}

}  // namespace

TEST_CASE("linear_f32 equals the sum in double, for every tail of tokens, columns and rows") {
  for (const Kernels* kernels : kernels_by(&Kernels::linear_f32)) {
    for (const size_t K : {1, 2, 7, 8, 9, 15, 16, 31, 33, 64, 100}) {
      for (const size_t T : {1, 2, 3, 4, 5, 7, 8, 13}) {
        for (const size_t N : {1, 2, 3, 4, 5, 6, 7, 11})
          check_f32(*kernels, {T, K, N, 0, N}, (T + N) % 2 == 0);
      }
    }
    for (size_t T = 1; T <= 70; ++T) check_f32(*kernels, {T, 40, 9, 0, 9}, true);
    for (const size_t T : {1, 5, 6, 7, 8, 9, 10, 11, 13, 20}) {
      for (size_t N = kOrderedRows + 1; N <= kOrderedRows + 17; ++N)
        check_f32(*kernels, {T, 300, N, 0, N}, true);
      for (const size_t K : {1, 7, 8, 127, 128, 129}) check_f32(*kernels, {T, K, 133, 2, 131}, false);
    }
    check_f32(*kernels, {1, 3072, 5, 0, 5}, false);
    check_f32(*kernels, {6, 5003, 5, 0, 5}, false);
  }
}

TEST_CASE("linear_f32 gives the same bits for every T, up to kOrderedRows rows") {
  constexpr size_t kTokens = 20, kK = 300;
  for (const Kernels* kernels : kernels_by(&Kernels::linear_f32)) {
    for (const size_t N : {size_t{1}, size_t{8}, size_t{16}, size_t{17}, size_t{32}, kOrderedRows}) {
      Random random(static_cast<unsigned>(N));
      const auto x = random.floats(kTokens * kK), w = random.floats(N * kK);
      std::vector<float> whole(kTokens * N), part(kTokens * N);
      kernels->linear_f32(x.data(), w.data(), nullptr, whole.data(), kTokens, kK, N, 0, N);
      for (size_t T = 1; T < kTokens; ++T) {
        kernels->linear_f32(x.data(), w.data(), nullptr, part.data(), T, kK, N, 0, N);
        const bool same = std::memcmp(part.data(), whole.data(), T * N * sizeof(float)) == 0;
        CHECK_MESSAGE(same, kernels->name, " N=", N, " T=", T);
      }
    }
  }
}

TEST_CASE("linear_f32 writes its slice of the rows and nothing else") {
  for (const Kernels* kernels : kernels_by(&Kernels::linear_f32)) {
    for (const size_t T : {1, 6}) {
      for (size_t begin = 0; begin <= 9; ++begin)
        for (size_t end = begin; end <= 9; ++end) check_f32(*kernels, {T, 24, 9, begin, end}, true);
    }
  }
}

TEST_CASE("linear_f32 of no tokens or no rows does nothing, and of no columns gives the bias") {
  for (const Kernels* kernels : kernels_by(&Kernels::linear_f32)) {
    check_f32(*kernels, {0, 8, 4, 0, 4}, true);
    check_f32(*kernels, {3, 8, 4, 2, 2}, true);
    check_f32(*kernels, {3, 0, 4, 0, 4}, true);
    check_f32(*kernels, {1, 0, 4, 0, 4}, false);
  }
}

TEST_CASE("from_half is exact for every float16") {
  for (unsigned half = 0; half <= 0xFFFF; ++half) {
    const int exponent = half >> 10 & 31, fraction = half & 0x3FF;
    const float got = from_half(static_cast<uint16_t>(half)), sign = half & 0x8000 ? -1.0f : 1.0f;
    if (exponent == 31) {
      CHECK((fraction == 0 ? got == sign * INFINITY : std::isnan(got)));
    } else {
      const float want = exponent == 0 ? std::ldexp(static_cast<float>(fraction), -24)
                                       : std::ldexp(static_cast<float>(1024 + fraction), exponent - 25);
      CHECK(got == sign * want);
      CHECK(std::signbit(got) == std::signbit(sign));
    }
  }
}

TEST_CASE("linear_nbits equals the dequantised sum in double, for every block size, width and tail") {
  for (const Kernels* kernels : kernels_by(&Kernels::linear_nbits)) {
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
  for (const Kernels* kernels : kernels_by(&Kernels::linear_nbits)) {
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
  for (const Kernels* kernels : kernels_by(&Kernels::linear_nbits)) {
    for (const unsigned bits : {4u, 8u}) {
      for (const size_t T : {0, 1, 6}) {
        for (size_t begin = 0; begin <= 9; begin += 2)
          for (size_t end = begin; end <= 9; ++end)
            check_nbits(*kernels, {T, 64, 9, begin, end}, 32, bits, false, true);
      }
    }
  }
}

TEST_CASE("quantise gives the codes, scales and sums that its contract names") {
  for (const Kernels* kernels : all_kernels()) {
    for (const unsigned bits : {4u, 8u}) {
      Random random(bits);
      for (const size_t T : {1, 3})
        for (const size_t K : {64, 192, 1024}) check_quantise(*kernels, random.floats(T * K, 3), T, K, bits);
      std::vector<float> edges(128, 0.0f);  // a group of zeros, then one with an end of the range and ties
      for (size_t i = 64; i < 128; ++i) edges[i] = static_cast<float>(i) - 95.5f;
      edges[70] = -127.0f;
      check_quantise(*kernels, edges, 1, 128, bits);
      check_quantise(*kernels, std::vector<float>(64, 0x1p-130f), 1, 64, bits);
      check_quantise(*kernels, std::vector<float>(64, 0x1p127f), 1, 64, bits);
    }
  }
}

TEST_CASE("a NaN or an infinity among the activations gives NaN, and only in its group") {
  for (const Kernels* kernels : all_kernels()) {
    for (const float bad : {NAN, INFINITY, -INFINITY}) {
      for (const size_t at : {64, 65, 100, 127}) {
        std::vector<float> x(192, 1.0f);
        x[at] = bad;
        Activations q(1, 192);
        kernels->quantise(x.data(), 1, 192, 4, q.view());
        CHECK(q.scales[0] == 1.0f / 127.0f);
        CHECK(std::isnan(q.scales[1]));
        CHECK(q.scales[2] == 1.0f / 127.0f);
      }
    }
  }
}

TEST_CASE("linear_q8 equals the sum in double, for every block size, width and tail") {
  for (const Kernels* kernels : all_kernels()) {
    for (const unsigned bits : {4u, 8u}) {
      for (const size_t block : {64, 128, 256}) {
        for (const size_t blocks : {1, 2, 3, 5}) {
          for (const size_t T : {1, 2, 5})
            check_q8(*kernels, {T, block * blocks, 21, 0, 21}, block, bits, T == 2);
        }
      }
      for (size_t T = 1; T <= 20; ++T) check_q8(*kernels, {T, 128, 18, 0, 18}, 64, bits, true);
      for (size_t T = 1; T <= 9; ++T) check_q8(*kernels, {T, 704, 37, 0, 37}, 64, bits, true);
      for (const size_t K : {1024, 1088, 3072}) {
        check_q8(*kernels, {1, K, 6, 0, 6}, 64, bits, false);
        check_q8(*kernels, {9, K, 6, 0, 6}, 64, bits, true);
      }
    }
  }
}

TEST_CASE("linear_q8 survives the largest codes: no sum saturates") {
  for (const Kernels* kernels : all_kernels()) {
    for (const unsigned bits : {4u, 8u}) {
      for (const uint8_t byte : {uint8_t{0}, uint8_t{255}}) {
        for (const float sign : {1.0f, -1.0f}) {
          for (const size_t K : {64, 192}) {
            const std::vector<uint8_t> packed(16 * K * bits / 8, byte);
            const std::vector<float> scales(16 * K / 64, 1.0f), x(6 * K, sign * 127);
            const NBitsMatrix w{packed.data(), scales.data(), nullptr, 16, K, 64, bits};
            for (const size_t T : {1, 2, 3, 6}) {
              Activations q(T, K);
              std::vector<float> y(T * 16);
              kernels->quantise(x.data(), T, K, bits, q.view());
              kernels->linear_q8(q.view(), w, {}, y.data(), T, 0, 16);
              const int zero = 1 << (bits - 1), code = byte == 0 ? 0 : 2 * zero - 1;
              const float expected = sign * 127 * static_cast<float>(K) * static_cast<float>(code - zero);
              for (const float value : y) CHECK(value == expected);
            }
          }
        }
      }
    }
  }
}

TEST_CASE("linear_q8 writes its slice of the rows and nothing else") {
  for (const Kernels* kernels : all_kernels()) {
    for (const unsigned bits : {4u, 8u}) {
      for (const size_t T : {1, 6}) {
        for (size_t begin = 0; begin <= 20; begin += 4)
          for (size_t end = begin; end <= 20; ++end)
            check_q8(*kernels, {T, 64, 20, begin, end}, 64, bits, true);
      }
      for (const size_t T : {1, 2, 3, 6, 17}) {  // several tiles of rows, and rows of few and of many groups
        for (const size_t K : {64, 192, 640}) {
          check_q8(*kernels, {T, K, 70, 0, 70}, 64, bits, true);
          check_q8(*kernels, {T, K, 70, 3, 69}, 64, bits, false);
          check_q8(*kernels, {T, K, 70, 32, 41}, 64, bits, true);
        }
      }
    }
  }
}

TEST_CASE("linear_affine equals the sum in double, for every width, number of tokens and slice") {
  for (const Kernels* kernels : all_kernels()) {
    for (const size_t K : {64, 128, 192, 256, 320, 512, 576, 704, 1536})
      for (const size_t T : {1, 2, 3, 4, 9}) check_affine(*kernels, {T, K, 21, 0, 21}, T == 2);
    for (size_t T = 1; T <= 20; ++T) check_affine(*kernels, {T, 128, 18, 0, 18}, true);
    for (const size_t T : {1, 2, 3, 6, 17}) {
      for (size_t end = 0; end <= 20; end += 3) check_affine(*kernels, {T, 64, 20, end / 2, end}, true);
      check_affine(*kernels, {T, 640, 70, 3, 69}, false);
      check_affine(*kernels, {T, 640, 70, 32, 41}, true);
    }
  }
}

TEST_CASE("linear_affine survives the largest codes: no sum saturates") {
  for (const Kernels* kernels : all_kernels()) {
    for (const float sign : {1.0f, -1.0f}) {
      constexpr size_t kRows = 16, kK = 192;
      const std::vector<uint8_t> packed(kRows * kK / 2, 255);
      const std::vector<uint16_t> ones(kRows * kK / kAffineBlock, 0x3C00), zeros(ones.size(), 0);
      const std::vector<float> x(6 * kK, sign * 127);
      const NBitsMatrix w{packed.data(), nullptr, nullptr,     kRows,       kK,
                          kAffineBlock,  4,       ones.data(), zeros.data()};
      for (const size_t T : {1, 2, 3, 6}) {
        Activations q(T, kK);
        std::vector<int32_t> sums(T * kK / kAffineBlock);
        std::vector<float> y(T * kRows);
        kernels->quantise(x.data(), T, kK, 4, q.view());
        affine_sums(q.codes.data(), T, kK, sums.data());
        kernels->linear_affine({q.codes.data(), q.scales.data(), sums.data()}, w, nullptr, y.data(), T, 0,
                               kRows);
        for (const float value : y) CHECK(value == sign * 127 * kK * 15);
      }
    }
  }
}
