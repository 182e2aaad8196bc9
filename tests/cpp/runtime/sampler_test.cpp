// The sampler: what each option keeps, that a seed fixes the tokens, and what it refuses.
#include "runtime/sampler.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <vector>

#include "platform/error.h"

namespace {

using allmem::Error;
using allmem::ErrorCode;
using allmem::Random;
using allmem::Sampler;
using allmem::SamplerOptions;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Logits whose softmax at temperature 1 is `probabilities`.
std::vector<float> logits_of(const std::vector<double>& probabilities) {
  std::vector<float> logits;
  for (double p : probabilities) logits.push_back(static_cast<float>(std::log(p)));
  return logits;
}

std::map<int32_t, int> histogram(const SamplerOptions& options, const std::vector<float>& logits, int draws) {
  Sampler sampler(options, logits.size());
  std::map<int32_t, int> counts;
  for (int i = 0; i < draws; ++i) ++counts[*sampler.sample(logits)];
  return counts;
}

std::set<int32_t> support(const SamplerOptions& options, const std::vector<float>& logits) {
  std::set<int32_t> ids;
  for (const auto& [id, count] : histogram(options, logits, 4000)) ids.insert(id);
  return ids;
}

struct PlainCandidate {
  float logit;
  int32_t id;
  double weight;
};

// What Sampler::sample() promises, in the plainest way: every possible token is a candidate.
std::optional<int32_t> plain_sample(const SamplerOptions& o, std::span<const float> logits,
                                    std::span<const int32_t> recent, std::span<const uint32_t> allowed,
                                    Random& random) {
  std::vector<PlainCandidate> live;
  for (size_t i = 0; i < logits.size(); ++i) {
    const auto id = static_cast<int32_t>(i);
    float logit = logits[i];
    for (const auto& of : o.logit_bias) logit += of.id == id ? of.bias : 0.0f;
    if (std::ranges::find(recent, id) != recent.end()) {
      logit = logit > 0.0f ? logit / o.repetition_penalty : logit * o.repetition_penalty;
    }
    if (!allowed.empty() && (allowed[i / 32] >> (i % 32) & 1) == 0) continue;
    if (logit > -kInf) live.push_back({logit, id, 0.0});
  }
  if (live.empty()) return std::nullopt;
  const auto more_likely = [](const PlainCandidate& a, const PlainCandidate& b) {
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
  };
  const PlainCandidate best = *std::ranges::min_element(live, more_likely);
  if (o.temperature == 0.0f) return best.id;
  const auto k = static_cast<size_t>(o.top_k);
  const bool some = k > 0 && k < logits.size();
  if (some || o.top_p < 1.0f) std::ranges::sort(live, more_likely);
  if (some && k < live.size()) live.resize(k);
  double total = 0.0;
  for (PlainCandidate& c : live) {
    c.weight = std::exp((static_cast<double>(c.logit) - static_cast<double>(best.logit)) /
                        static_cast<double>(o.temperature));
    total += c.weight;
  }
  if (o.top_p < 1.0f) {
    double mass = 0.0;
    size_t kept = 0;
    while (kept < live.size() && (kept == 0 || mass < static_cast<double>(o.top_p) * total)) {
      mass += live[kept++].weight;
    }
    live.resize(kept);
  }
  std::erase_if(live, [&](const PlainCandidate& c) { return c.weight < static_cast<double>(o.min_p); });
  total = 0.0;
  for (const PlainCandidate& c : live) total += c.weight;
  double left = random.uniform() * total;
  for (const PlainCandidate& c : live) {
    left -= c.weight;
    if (left < 0.0) return c.id;
  }
  return live.back().id;
}

void check_refused(const SamplerOptions& options, const char* name) {
  try {
    Sampler sampler(options, 4);
    FAIL("accepted a bad " << name);
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::kInvalidArgument);
    CHECK(std::string(error.what()).find(name) != std::string::npos);
  }
}

}  // namespace

TEST_CASE("temperature 0 takes the most likely token, and of equals the lowest id") {
  Sampler sampler({}, 5);
  CHECK(sampler.sample(std::vector<float>{0, 3, 1, 3, 3}) == 1);
  CHECK(sampler.sample(std::vector<float>{-5, -3, -1, -3, -3}) == 2);
  CHECK(sampler.sample(std::vector<float>{7}) == 0);
}

TEST_CASE("draws follow the softmax of the logits over the temperature") {
  const std::vector<float> logits = logits_of({0.5, 0.3, 0.15, 0.05});
  constexpr int kDraws = 40000;
  for (float temperature : {0.5f, 1.0f, 2.0f}) {
    double total = 0;
    std::vector<double> expected;
    for (float logit : logits) {
      expected.push_back(std::exp(static_cast<double>(logit / temperature)));
      total += expected.back();
    }
    auto counts = histogram({.temperature = temperature, .seed = 7}, logits, kDraws);
    for (size_t i = 0; i < logits.size(); ++i) {
      const double p = expected[i] / total;
      const double five_sigma = 5 * std::sqrt(p * (1 - p) / kDraws);
      CHECK(std::abs(counts[static_cast<int32_t>(i)] / double(kDraws) - p) < five_sigma);
    }
  }
}

TEST_CASE("top-k keeps the k most likely tokens, of equals the lowest ids") {
  const std::vector<float> logits = {1.0f, 1.5f, 1.0f, 1.5f, 1.0f};
  CHECK(support({.temperature = 1, .top_k = 3}, logits) == std::set<int32_t>{0, 1, 3});
  CHECK(support({.temperature = 1, .top_k = 1}, logits) == std::set<int32_t>{1});
  CHECK(support({.temperature = 1, .top_k = 99}, logits).size() == 5);
}

TEST_CASE("top-p keeps the smallest set of most likely tokens that has the mass") {
  const std::vector<float> logits = logits_of({0.15, 0.5, 0.05, 0.3});
  CHECK(support({.temperature = 1, .top_p = 0.45f}, logits) == std::set<int32_t>{1});
  CHECK(support({.temperature = 1, .top_p = 0.75f}, logits) == std::set<int32_t>{1, 3});
  CHECK(support({.temperature = 1, .top_p = 0.9f}, logits) == std::set<int32_t>{0, 1, 3});
  CHECK(support({.temperature = 1, .top_p = 1.0f}, logits).size() == 4);
  CHECK(support({.temperature = 1, .top_p = 1e-9f}, logits) == std::set<int32_t>{1});
}

TEST_CASE("top-p sees only what top-k left") {
  // Of {0.5, 0.3} the first has 0.625 of the mass.
  const std::vector<float> logits = logits_of({0.15, 0.5, 0.05, 0.3});
  CHECK(support({.temperature = 1, .top_k = 2, .top_p = 0.6f}, logits) == std::set<int32_t>{1});
}

TEST_CASE("min-p drops tokens below its share of the most likely one") {
  const std::vector<float> logits = logits_of({0.15, 0.5, 0.05, 0.3});
  CHECK(support({.temperature = 1, .min_p = 0.2f}, logits) == std::set<int32_t>{0, 1, 3});
  CHECK(support({.temperature = 1, .min_p = 0.5f}, logits) == std::set<int32_t>{1, 3});
  CHECK(support({.temperature = 1, .min_p = 1.0f}, logits) == std::set<int32_t>{1});
}

TEST_CASE("the repetition penalty lowers positive and negative logits of recent tokens, once each") {
  Sampler sampler({.repetition_penalty = 2.0f, .repetition_window = 2}, 3);
  CHECK(sampler.sample(std::vector<float>{4, 3, 0}) == 0);
  sampler.accept(0);
  sampler.accept(0);
  CHECK(sampler.sample(std::vector<float>{4, 3, 0}) == 1);        // 4 / 2 < 3
  CHECK(sampler.sample(std::vector<float>{4, 1.5f, 0}) == 0);     // 4 / 2 and not 4 / 4
  CHECK(sampler.sample(std::vector<float>{-1, -1.5f, -9}) == 1);  // -1 * 2 < -1.5
  sampler.accept(1);
  sampler.accept(1);  // 0 has left the window
  CHECK(sampler.sample(std::vector<float>{4, 3, 0}) == 0);
}

TEST_CASE("a seed fixes the tokens, another seed changes them, and a copy continues alike") {
  const std::vector<float> logits(50, 0.0f);
  auto draw = [&](Sampler& sampler) {
    std::vector<int32_t> ids;
    for (int i = 0; i < 20; ++i) ids.push_back(*sampler.sample(logits));
    return ids;
  };
  Sampler a({.temperature = 1, .seed = 3}, 50), b({.temperature = 1, .seed = 3}, 50);
  Sampler other({.temperature = 1, .seed = 4}, 50);
  const auto first = draw(a);
  CHECK(first == draw(b));
  CHECK(first != draw(other));
  Sampler copy = a;
  CHECK(draw(copy) == draw(a));
}

TEST_CASE("the random numbers are xoshiro256** seeded by splitmix64, on every platform") {
  // splitmix64 from 0 starts with these published words; xoshiro's first output depends on the second alone.
  Random random(0);
  const uint64_t second = 0x6e789e6aa1b965f4u;
  const uint64_t product = second * 5;
  CHECK(random.next() == ((product << 7) | (product >> 57)) * 9);
  for (int i = 0; i < 1000; ++i) {
    const double u = random.uniform();
    CHECK(u >= 0.0);
    CHECK(u < 1.0);
  }
}

TEST_CASE("options out of range are refused by name") {
  for (float bad : {kNan, kInf, -kInf, -0.1f}) check_refused({.temperature = bad}, "temperature");
  check_refused({.top_k = -1}, "top_k");
  for (float bad : {kNan, kInf, -0.5f, 0.0f, 1.01f}) check_refused({.top_p = bad}, "top_p");
  for (float bad : {kNan, kInf, -0.5f, 1.01f}) check_refused({.min_p = bad}, "min_p");
  for (float bad : {kNan, kInf, -1.0f, 0.0f, 11.0f})
    check_refused({.repetition_penalty = bad}, "repetition_penalty");
  check_refused({.repetition_window = -1}, "repetition_window");
  check_refused({.repetition_window = std::numeric_limits<int32_t>::max()}, "repetition_window");
  CHECK_THROWS_AS(Sampler({}, 0), Error);
}

TEST_CASE("a logit of minus infinity is probability 0, with whatever options") {
  const std::vector<float> logits = {-kInf, 1.0f, -kInf, 1.0f, -kInf};
  for (const SamplerOptions& options :
       std::vector<SamplerOptions>{{.temperature = 1},
                                   {.temperature = 1e30f},
                                   {.temperature = 1, .top_k = 4},
                                   {.temperature = 1, .top_p = 0.999f},
                                   {.temperature = 1, .min_p = 0.0f},
                                   {.temperature = 1, .repetition_penalty = 0.1f}}) {
    CHECK(support(options, logits) == std::set<int32_t>{1, 3});
  }
  CHECK(Sampler({}, 5).sample(logits) == 1);
  CHECK(Sampler({}, 2).sample(std::vector<float>{-kInf, -kInf}) == std::nullopt);
}

TEST_CASE("a bias is added to its logits before all else, minus infinity excludes, and twice adds twice") {
  const std::vector<float> logits = {1, 2, 3, 4};
  CHECK(Sampler({.logit_bias = {{3, -2.0f}}}, 4).sample(logits) == 2);
  CHECK(Sampler({.logit_bias = {{0, 2.0f}, {3, -kInf}, {0, 2.5f}}}, 4).sample(logits) == 0);
  Sampler penalised({.repetition_penalty = 2.0f, .logit_bias = {{2, -3.0f}, {3, -4.5f}}}, 4);
  penalised.accept(3);  // 4 - 4.5, times 2
  CHECK(penalised.sample(std::vector<float>{-0.9f, -2, 2, 4}) == 0);
  CHECK(support({.temperature = 1, .top_k = 2, .logit_bias = {{0, 100.0f}}}, logits) == std::set<int32_t>{0});
  check_refused({.logit_bias = {{0, 100.1f}}}, "logit_bias");
  for (float bad : {kNan, kInf}) check_refused({.logit_bias = {{0, bad}}}, "logit_bias");
  for (int32_t bad : {-1, 4}) check_refused({.logit_bias = {{bad, 1.0f}}}, "logit_bias");
}

TEST_CASE("a mask says which tokens may be drawn") {
  std::vector<float> logits(70, 0.0f);
  logits[5] = 9.0f;
  std::vector<uint32_t> allowed(3, 0);
  allowed[0] = 1u << 31;
  allowed[2] = 1u << 5;
  Sampler sampler({.temperature = 1, .seed = 3}, 70);
  std::set<int32_t> drawn;
  for (int i = 0; i < 100; ++i) drawn.insert(*sampler.sample(logits, allowed));
  CHECK(drawn == std::set<int32_t>{31, 69});
  CHECK(sampler.sample(logits, std::vector<uint32_t>(3, 0)) == std::nullopt);
}

TEST_CASE("logits that are no numbers, missing or too many are refused") {
  Sampler sampler({}, 3);
  for (float bad : {kNan, kInf}) {
    try {
      sampler.sample(std::vector<float>{0, bad, 0});
      FAIL("accepted");
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::kBadModel);
    }
  }
  for (size_t i = 0; i < 2100; i += 7) {  // wherever it is, it is found and named
    std::vector<float> logits(2100, 1.0f);
    logits[i] = i % 2 == 0 ? kNan : kInf;
    try {
      Sampler({}, 2100).sample(logits, std::vector<uint32_t>(66, 0));
      FAIL("accepted");
    } catch (const Error& error) {
      CHECK(std::string(error.what()).find("token " + std::to_string(i) + " ") != std::string::npos);
    }
  }
  CHECK_THROWS_AS(sampler.sample(std::vector<float>{}), Error);
  CHECK_THROWS_AS(sampler.sample(std::vector<float>{1, 2, 3, 4}), Error);
  CHECK_THROWS_AS(sampler.accept(-1), Error);
  CHECK_THROWS_AS(sampler.accept(3), Error);
}

TEST_CASE("extreme but finite logits and temperatures still give a token") {
  constexpr float kMax = std::numeric_limits<float>::max();
  for (float temperature : {1e-30f, 1e30f}) {
    Sampler sampler({.temperature = temperature, .top_p = 0.9f}, 3);
    const int32_t id = *sampler.sample(std::vector<float>{-kMax, kMax, 0});
    CHECK(id >= 0);
    CHECK(id < 3);
  }
}

TEST_CASE("tokens that cannot matter are left out, and the same are drawn as from all") {
  std::mt19937 generator(11);  // its numbers, unlike the standard's distributions, are the same everywhere
  const auto below = [&generator](uint32_t n) { return generator() % n; };
  const auto coin = [&below] { return below(2) == 0; };
  for (const size_t n : {1u, 2u, 7u, 1000u, 50000u}) {
    const auto size = static_cast<uint32_t>(n);
    for (int round = 0; round < (n > 1000 ? 60 : 600); ++round) {
      SamplerOptions o;
      o.temperature = std::vector<float>{0.0f, 0.2f, 1.0f, 4.0f}[below(4)];
      if (coin()) o.top_k = std::vector<int32_t>{1, 3, 40, 30000}[below(4)];
      if (coin()) o.top_p = 0.9f;
      if (coin()) o.min_p = 0.02f;
      if (coin()) o.repetition_penalty = 1.3f;
      o.repetition_window = 8;
      o.seed = generator();
      if (coin()) {
        for (int i = 0; i < 4; ++i) {
          const float bias = coin() ? -kInf : static_cast<float>(below(9)) - 4.0f;
          o.logit_bias.push_back({static_cast<int32_t>(below(size)), bias});
        }
      }
      std::vector<uint32_t> allowed;
      if (coin()) {
        for (size_t i = 0; i < (n + 31) / 32; ++i) allowed.push_back(generator());
      }
      const float step = coin() ? 1.0f : 0.001f;  // of whole numbers, many are equal
      std::vector<float> logits(n);
      for (float& logit : logits) {  // the sum of four is a rough bell
        for (int i = 0; i < 4; ++i) logit += static_cast<float>(below(8001)) / 1000 - 4.0f;
        logit = below(20) == 0 ? -kInf : std::round(logit / step) * step;
      }
      Sampler sampler(o, n);
      Random random(o.seed);
      std::vector<int32_t> recent;
      for (int i = 0; i < 12; ++i) {
        recent.push_back(static_cast<int32_t>(below(size)));
        sampler.accept(recent.back());
      }
      recent.erase(recent.begin(), recent.end() - o.repetition_window);
      for (int draw = 0; draw < 3; ++draw) {
        REQUIRE(sampler.sample(logits, allowed) == plain_sample(o, logits, recent, allowed, random));
      }
    }
  }
}
