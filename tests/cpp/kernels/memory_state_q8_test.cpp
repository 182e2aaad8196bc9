// What is kept in 8 bits: near to what it was, the same in every table, and rounded at the same tokens
// however they come.
#include "kernels/memory_state_q8.h"

#include <cstring>

#include "bounded.h"

using namespace allmem;
using namespace allmem::test;

namespace {

constexpr size_t kSizes[] = {1, 3, 8, 63, 64, 65, 127, 1000, 1024, 1089, 4096};

struct Kept {
  std::vector<float> memory, scratch;
  size_t n;

  explicit Kept(size_t count)
      : memory(ValuesQ8::bytes(count) / sizeof(float)), scratch(ValuesQ8::scratch_floats()), n(count) {}
  ValuesQ8 values() { return {reinterpret_cast<std::byte*>(memory.data()), n}; }
  void store(const Kernels& kernels, const std::vector<float>& x, const float* base) {
    std::fill(scratch.begin(), scratch.end(), std::nanf(""));
    values().store(kernels, x.data(), base, scratch.data());
  }
  std::vector<float> load(const Kernels& kernels, const float* base) {
    std::vector<float> x(n + 1, 7.0f);
    values().load(kernels, base, x.data());
    CHECK(x.back() == 7.0f);
    x.pop_back();
    return x;
  }
  bool operator==(const Kept& other) const {
    return std::memcmp(memory.data(), other.memory.data(), memory.size() * sizeof(float)) == 0;
  }
};

// Half a step of each value's group, which is 1/127 of the largest difference from the base. Float32 adds
// three roundings of at most 127 steps on the way (the difference, the factor, the scale), and one of the
// sum.
std::vector<Bounded> in_8_bits(const std::vector<float>& x, const float* base) {
  std::vector<Bounded> want;
  for (size_t begin = 0; begin < x.size(); begin += kQ8Group) {
    const size_t end = std::min(x.size(), begin + kQ8Group);
    const auto start = [&](size_t i) { return base == nullptr ? 0.0 : double{base[i]}; };
    double most = 0;
    for (size_t i = begin; i < end; ++i) most = std::max(most, std::fabs(double{x[i]} - start(i)));
    for (size_t i = begin; i < end; ++i)
      want.push_back(rounded(double{x[i]}, most / 254 + 4 * kUnit * (most + std::fabs(start(i)))));
  }
  return want;
}

}  // namespace

TEST_CASE("values in 8 bits come back within half a step of their group, with and without a base") {
  for (const Kernels* kernels : all_kernels()) {
    for (const size_t n : kSizes) {
      Random random(static_cast<uint32_t>(n));
      const auto base = random.floats(n), x = random.floats(n, 0.3);
      for (const float* start : {static_cast<const float*>(nullptr), base.data()}) {
        Kept kept(n);
        kept.store(*kernels, x, start);
        check_within(std::string(kernels->name) + " values_q8 n=" + std::to_string(n),
                     kept.load(*kernels, start), in_8_bits(x, start));
      }
    }
  }
}

TEST_CASE("values in 8 bits and what they come back as are the same bits in every table") {
  for (const size_t n : kSizes) {
    Random random(static_cast<uint32_t>(n));
    const auto base = random.floats(n);
    auto x = random.floats(n, 0.3);
    x[0] = 1e-38f;  // beside the others nothing
    Kept expected(n);
    expected.store(ref_kernels(), x, base.data());
    const auto back = expected.load(ref_kernels(), base.data());
    for (const Kernels* kernels : all_kernels()) {
      CAPTURE(kernels->name);
      Kept kept(n);
      kept.store(*kernels, x, base.data());
      CHECK(kept == expected);
      CHECK(kept.load(*kernels, base.data()) == back);
    }
  }
}

TEST_CASE("nothing is kept as zeros, and zeros are the base to the last bit") {
  const size_t n = 130;
  Random random(1);
  const auto base = random.floats(n);
  for (const Kernels* kernels : all_kernels()) {
    Kept kept(n);
    CHECK(kept.load(*kernels, base.data()) == base);
    kept.store(*kernels, base, base.data());
    CHECK(kept == Kept(n));
    kept.store(*kernels, base, nullptr);
    CHECK_FALSE(kept == Kept(n));
    kept.values().clear();
    CHECK(kept == Kept(n));
  }
}

TEST_CASE("a number that is none makes its whole group none, and no other") {
  const size_t n = 128;
  for (const Kernels* kernels : all_kernels()) {
    for (const float bad : {std::nanf(""), INFINITY, -INFINITY}) {
      std::vector<float> x(n, 1.0f);
      x[70] = bad;
      Kept kept(n);
      kept.store(*kernels, x, nullptr);
      const auto back = kept.load(*kernels, nullptr);
      for (size_t i = 0; i < n; ++i) CHECK(std::isnan(back[i]) == (i >= kQ8Group));
    }
  }
}

namespace {

// A memory of one head as a session keeps it, with random weights to start from.
struct State {
  static constexpr size_t kDim = 24, kHidden = 20, kSize = kDim * kHidden;
  const Kernels& kernels;
  std::vector<float> initial[3], kept[9], row_scales, scratch, shared;

  State(const Kernels& table, Random& random)
      : kernels(table),
        row_scales(2 * kHidden + kDim, 1.0f),
        scratch(MemoryStateQ8::scratch_floats(kDim, kHidden)),
        shared(MemoryStateQ8::shared_floats(table, kDim, kHidden)) {
    for (auto& matrix : initial) matrix = random.floats(kSize, 0.5);
    for (auto& matrix : kept) matrix.resize(ValuesQ8::bytes(kSize) / sizeof(float));
  }

  std::byte* bytes(size_t i) { return reinterpret_cast<std::byte*>(kept[i].data()); }
  // What a call begins with: nothing of the one before is left in scratch memory.
  MemoryStateQ8 open() {
    std::fill(scratch.begin(), scratch.end(), std::nanf(""));
    std::array<MemoryStateQ8::Matrix, 3> matrices;
    for (size_t i = 0; i < 3; ++i) matrices[i] = {initial[i].data(), bytes(i), bytes(3 + i), bytes(6 + i)};
    return {kernels, kDim, kHidden, matrices, row_scales.data(), scratch.data(), shared.data()};
  }
  std::vector<float> values(size_t i) {
    std::vector<float> x(kSize);
    ValuesQ8(bytes(i), kSize).load(kernels, i < 3 ? initial[i].data() : nullptr, x.data());
    return x;
  }
};

struct Tokens {
  std::vector<float> k, v, eta;
  Tokens(size_t n, Random& random)
      : k(random.floats(n * State::kDim, 0.3)), v(random.floats(n * State::kDim)), eta(n, 0.05f) {}
  void learn(MemoryStateQ8& memory, size_t begin, size_t n) const {
    memory.learn(&k[begin * State::kDim], State::kDim, &v[begin * State::kDim], State::kDim, &eta[begin], 1,
                 n);
  }
};

}  // namespace

TEST_CASE("a memory in 8 bits is one in float32, rounded where it is kept") {
  for (const Kernels* kernels : all_kernels()) {
    Random random(3);
    State state(*kernels, random);
    const Tokens tokens(kGradientBlock, random);
    // The same in float32, by the same kernels: beside rounding what is kept, nothing differs.
    std::vector<float> w[3], s[3], g[3], shared(state.shared.size());
    for (size_t i = 0; i < 3; ++i) {
      w[i] = state.initial[i];
      s[i].resize(State::kSize);
      g[i].resize(State::kSize);
    }
    float* r = state.row_scales.data();
    const MemoryHead head{State::kDim,        State::kHidden,        w[0].data(), w[1].data(),
                          w[2].data(),        s[0].data(),           s[1].data(), s[2].data(),
                          g[0].data(),        g[1].data(),           g[2].data(), r,
                          r + State::kHidden, r + 2 * State::kHidden};
    const auto check = [&](const char* what, size_t first, const std::vector<float>* values) {
      for (size_t i = 0; i < 3; ++i) {
        const float* base = first == 0 ? state.initial[i].data() : nullptr;
        check_within(std::string(kernels->name) + " " + what, state.values(first + i),
                     in_8_bits(values[i], base));
      }
    };
    kernels->memory_accumulate_fast(head, tokens.k.data(), State::kDim, tokens.v.data(), State::kDim,
                                    tokens.eta.data(), 1, kGradientBlock, shared.data());
    MemoryStateQ8 call = state.open();
    tokens.learn(call, 0, kGradientBlock);
    call.close();
    check("gradient", 6, g);

    for (size_t i = 0; i < 3; ++i) std::ranges::copy(state.values(6 + i), g[i].begin());  // as it was kept
    kernels->memory_write(head, 0.5f);
    MemoryStateQ8 next = state.open();
    next.write(0.5f);
    check("momentum", 3, s);
    check("weights", 0, w);
    for (size_t i = 0; i < 3; ++i) {
      CHECK(state.values(6 + i) == std::vector<float>(State::kSize));
      const float* opened = i == 0   ? next.weights().w_gate
                            : i == 1 ? next.weights().w_up
                                     : next.weights().w_down;
      CHECK(state.values(i) == std::vector<float>(opened, opened + State::kSize));  // read as they are kept
    }
  }
}

TEST_CASE("ending a call between two blocks changes no bit of what is kept") {
  for (const Kernels* kernels : all_kernels()) {
    Random random(4);
    const size_t n = 2 * kGradientBlock + 5;
    State whole(*kernels, random);
    State split = whole;
    const Tokens tokens(n, random);
    for (int chunk = 0; chunk < 2; ++chunk) {
      MemoryStateQ8 call = whole.open();
      for (size_t begin = 0; begin < n; begin += kGradientBlock) {
        const size_t count = std::min(n - begin, kGradientBlock);
        tokens.learn(call, begin, count);
        MemoryStateQ8 part = split.open();
        tokens.learn(part, begin, count);
        if (begin + count == n) part.write(0.9f);
        part.close();
      }
      call.write(0.9f);
      call.close();
      for (size_t i = 0; i < 9; ++i) CHECK_MESSAGE(whole.values(i) == split.values(i), kernels->name);
    }
    CHECK(whole.values(0) != whole.initial[0]);
    CHECK(whole.values(3) != std::vector<float>(State::kSize));
  }
}

TEST_CASE("settling learns what there is of a gradient, once") {
  for (const Kernels* kernels : all_kernels()) {
    Random random(5);
    State state(*kernels, random);
    const Tokens tokens(7, random);
    CHECK_FALSE(state.open().settle());
    MemoryStateQ8 call = state.open();
    tokens.learn(call, 0, 7);
    call.close();
    std::vector<std::vector<float>> gradient;
    for (size_t i = 6; i < 9; ++i) gradient.push_back(state.values(i));
    CHECK(state.open().settle());
    for (size_t i = 0; i < 3; ++i) {
      CHECK(state.values(6 + i) == std::vector<float>(State::kSize));
      check_within("momentum", state.values(3 + i), in_8_bits(gradient[i], nullptr));
      CHECK(state.values(i) != state.initial[i]);
    }
    CHECK_FALSE(state.open().settle());
  }
}
