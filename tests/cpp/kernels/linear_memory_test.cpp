// What a token writes into the linear memory: every table against the rule in double.
#include "bounded.h"

using namespace allmem;
using namespace allmem::test;

namespace {

void check_write(size_t dim, bool delta) {
  Random random(static_cast<uint32_t>(dim + 1000 * delta));
  const auto state = random.floats(dim * dim), k = random.floats(dim), v = random.floats(dim);
  const auto eta = static_cast<float>(random.uniform(0, 1)), beta = static_cast<float>(random.uniform(0, 1));
  std::vector<Bounded> want;
  for (size_t i = 0; i < dim; ++i) {
    const auto row = [&](size_t j) { return Bounded(state[i * dim + j]); };
    const Bounded known = dot(dim, row, [&](size_t j) { return Bounded(k[j]); });
    const Bounded value(v[i]);
    const Bounded change = Bounded(eta) * (delta ? value - Bounded(beta) * known : value);
    for (size_t j = 0; j < dim; ++j) want.push_back(Bounded(beta) * row(j) + change * Bounded(k[j]));
  }
  for (const Kernels* kernels : all_kernels()) {
    std::vector<float> got = state, scratch(dim);
    kernels->linear_memory_write(got.data(), k.data(), v.data(), eta, beta, delta, dim, scratch.data());
    check_within(std::string(kernels->name) + " dim " + std::to_string(dim), got, want);
  }
}

}  // namespace

TEST_CASE("linear_memory_write of every table is the gated delta rule") {
  for (const size_t dim : {1, 3, 4, 7, 8, 16, 31, 64, 96, 128, 256}) {
    for (const bool delta : {true, false}) check_write(dim, delta);
  }
}

TEST_CASE("linear_memory_write of every table changes nothing where a token writes and forgets nothing") {
  Random random(5);
  for (const Kernels* kernels : all_kernels()) {
    const size_t dim = 24;
    const auto state = random.floats(dim * dim), k = random.floats(dim), v = random.floats(dim);
    std::vector<float> got = state, scratch(dim);
    kernels->linear_memory_write(got.data(), k.data(), v.data(), 0.0f, 1.0f, true, dim, scratch.data());
    CHECK(got == state);
  }
}
