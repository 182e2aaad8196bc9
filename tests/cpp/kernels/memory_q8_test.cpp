// Reading the memory from its 8-bit copy: every table against double, on the weights and activations as they
// are rounded.
#include "kernels/memory_q8.h"

#include <algorithm>
#include <cmath>

#include "bounded.h"

using namespace allmem;
using namespace allmem::test;

namespace {

struct Config {
  size_t dim, hidden, tokens, group;
};

// What rounding a row to 8 bits in groups gives: the nearest of 255 values, 1/127 of the group's largest
// apart. `got` may differ from x in the last rounding of that, so a product's inputs are known to within half
// a step.
struct Rounded {
  std::vector<double> values, steps;  // per element
};

Rounded rounded_row(const std::vector<Bounded>& x) {
  Rounded row;
  for (size_t begin = 0; begin < x.size(); begin += kQ8Group) {
    const size_t end = std::min(x.size(), begin + kQ8Group);
    double max = 0;
    for (size_t i = begin; i < end; ++i) max = std::max(max, x[i].size());
    for (size_t i = begin; i < end; ++i) {
      row.values.push_back(x[i].value);
      row.steps.push_back(max / 127);
    }
  }
  return row;
}

// Σ x w, where both are rounded: half a step each, and what float32 adds (the roundings of factors, codes and
// scales: 3 of at most 127 steps).
Bounded product(const std::vector<Bounded>& x, const float* w) {
  const std::vector<Bounded> weights(w, w + x.size());
  const Rounded a = rounded_row(x), b = rounded_row(weights);
  double value = 0, error = 0;
  const double half = 0.5 + 127 * 3.0 * kUnit;
  for (size_t i = 0; i < x.size(); ++i) {
    const double ea = x[i].error + half * a.steps[i], eb = half * b.steps[i];
    value += a.values[i] * b.values[i];
    error += std::fabs(a.values[i]) * eb + std::fabs(b.values[i]) * ea + ea * eb;
    error += gamma(x.size() + 4) * (std::fabs(a.values[i]) + ea) *
             (std::fabs(b.values[i]) + eb + 256 * b.steps[i]);
  }
  return {value, error};
}

void check(const Kernels& kernels, const Config& c) {
  const auto [D, h, T, group] = c;
  Random random(static_cast<uint32_t>(D * 131 + h * 17 + T * 3 + group));
  std::vector<float> gate = random.floats(h * D), up = random.floats(h * D), down = random.floats(D * h, 0.3);
  MemoryHead head{};
  head.dim = D;
  head.hidden = h;
  head.w_gate = gate.data();
  head.w_up = up.data();
  head.w_down = down.data();
  std::vector<float> scratch(MemoryQ8::scratch_floats(D, h, T, group), std::nanf(""));
  std::vector<float> memory(MemoryQ8::bytes(D, h) / sizeof(float) + 1, std::nanf(""));
  const MemoryQ8 copy(D, h, reinterpret_cast<std::byte*>(memory.data()));
  copy.remake(kernels, head, scratch.data());

  const size_t stride = group * D + 5;  // a neighbour's values lie between
  const auto q = random.floats(T * stride);
  std::vector<float> y(q.size(), 12345.0f), got;
  copy.read(kernels, q.data(), y.data(), T, group, stride, scratch.data());
  std::vector<Bounded> want;
  for (size_t t = 0; t < T; ++t) {
    for (size_t j = 0; j < group; ++j) {
      const float* z = q.data() + t * stride + j * D;
      const std::vector<Bounded> input(z, z + D);
      std::vector<Bounded> m;
      for (size_t i = 0; i < h; ++i)
        m.push_back(silu(product(input, gate.data() + i * D)) * product(input, up.data() + i * D));
      for (size_t d = 0; d < D; ++d) {
        want.push_back(Bounded(z[d]) + product(m, down.data() + d * h));
        got.push_back(y[t * stride + j * D + d]);
      }
    }
    for (size_t i = group * D; i < stride; ++i) CHECK(y[t * stride + i] == 12345.0f);
  }
  check_within(std::string(kernels.name) + " memory_q8 D=" + std::to_string(D) + " h=" + std::to_string(h) +
                   " T=" + std::to_string(T) + " group=" + std::to_string(group),
               got, want);
}

}  // namespace

TEST_CASE("reading from the 8-bit copy is as near to float32 as its roundings allow, for every shape") {
  for (const Kernels* kernels : all_kernels()) {
    for (const Config& c : {Config{1, 1, 1, 1},
                            {7, 9, 2, 3},
                            {32, 64, 1, 2},
                            {33, 65, 5, 2},
                            {64, 128, 3, 1},
                            {128, 256, 1, 2},
                            {128, 256, 20, 2},
                            {64, 64, 300, 1},
                            {8, 8, 2, 300}})
      check(*kernels, c);
  }
}

TEST_CASE("the copy of integers that 8 bits hold is exact, and so is what is read with them") {
  const size_t D = 64, h = 64;
  for (const Kernels* kernels : all_kernels()) {
    // W_g z = 127 z: silu(127) is 127 to the last bit, silu(-127) is 0. W_u z = z and W_d m = m.
    std::vector<float> gate(h * D, 0.0f), up(h * D, 0.0f), down(D * h, 0.0f), q(D), y(D);
    for (size_t i = 0; i < D; ++i) {
      gate[i * D + i] = 127;
      up[i * D + i] = down[i * h + i] = 1;
      q[i] = i % 2 == 0 ? 1.0f : -1.0f;
    }
    MemoryHead head{};
    head.dim = D;
    head.hidden = h;
    head.w_gate = gate.data();
    head.w_up = up.data();
    head.w_down = down.data();
    std::vector<float> scratch(MemoryQ8::scratch_floats(D, h, 1, 1)),
        memory(MemoryQ8::bytes(D, h) / sizeof(float));
    const MemoryQ8 copy(D, h, reinterpret_cast<std::byte*>(memory.data()));
    copy.remake(*kernels, head, scratch.data());
    copy.read(*kernels, q.data(), y.data(), 1, 1, D, scratch.data());
    for (size_t i = 0; i < D; ++i) {
      const double want = i % 2 == 0 ? 128 : -1;  // z + m, m = silu(127 z) z
      CHECK_MESSAGE(std::fabs(double{y[i]} - want) <= 128 * 8 * kUnit, kernels->name);
    }
  }
}

TEST_CASE("a copy's bytes are counted beyond 32 bits") {
  // [h, 64] twice and [1, h], h = 2^26, with a scale for each 64 codes
  CHECK(MemoryQ8::bytes(1, size_t{1} << 26) == (uint64_t{129} << 26) / 64 * 68);
}
