// Attention with 8-bit keys and values: its steps in every table, and the whole of it over streams cut at
// random, against double.
#include "kernels/attention_q8.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "bounded.h"

using namespace allmem;
using namespace allmem::test;

namespace {

constexpr float kUntouched = 12345.0f;

// --- softmax_step

// The running softmax of one row, as the kernel keeps it.
struct Softmax {
  float max = -INFINITY, total = 0;
};

// exp(x), x <= 0: a rounding of x, exp itself, and what is lost below float32's normal range.
Bounded weight_of(double x) {
  const double exact = std::exp(x);
  return {exact, exact * (std::expm1(kUnit * std::fabs(x)) + kFunctionUnits * kUnit) + 0x1p-126};
}

// One step from `state`, which it updates. Scores and scales outside of [begin, end) are NaN: they must not
// be looked at.
void check_step(const Kernels& kernels, const std::vector<float>& scores, const std::vector<float>& scales,
                size_t begin, size_t end, Softmax& state) {
  std::vector<float> got(kKeyTile + 1, std::nanf("")), scales_seen(kKeyTile, std::nanf(""));
  got[kKeyTile] = kUntouched;
  for (size_t j = begin; j < end; ++j) {
    got[j] = scores[j];
    scales_seen[j] = scales[j];
  }
  const Softmax before = state;
  const SeenKeys seen{static_cast<uint16_t>(begin), static_cast<uint16_t>(end)};
  float got_shrink = kUntouched;
  kernels.softmax_step(got.data(), scales_seen.data(), &seen, 1, &state.max, &state.total, &got_shrink);

  const std::string what = std::string(kernels.name) + " softmax_step [" + std::to_string(begin) + ", " +
                           std::to_string(end) + ")";
  CHECK_MESSAGE(got[kKeyTile] == kUntouched, what);
  got.pop_back();
  float max = before.max;
  for (size_t j = begin; j < end; ++j) max = std::max(max, scores[j]);
  CHECK_MESSAGE(state.max == max, what);
  std::vector<Bounded> weights(kKeyTile, 0.0), scaled(kKeyTile, 0.0);
  for (size_t j = begin; j < end; ++j) {
    weights[j] = weight_of(double{scores[j]} - double{max});
    scaled[j] = weights[j] * Bounded(scales[j]);
  }
  check_within(what + " weights", got, scaled);
  // What was summed shrinks to nothing the first time, and not at all while the maximum stays.
  const Bounded shrink = before.max == max         ? Bounded(1)
                         : before.max == -INFINITY ? Bounded(0)
                                                   : weight_of(double{before.max} - double{max});
  check_within(what + " shrink", {&got_shrink, 1}, {&shrink, 1});
  const Bounded total = dot(
      kKeyTile + 1, [&](size_t j) { return j < kKeyTile ? weights[j] : shrink; },
      [&](size_t j) { return j < kKeyTile ? 1.0f : before.total; });
  check_within(what + " total", {&state.total, 1}, {&total, 1});
}

// --- attention_q8

// A row of keys, values or queries in 8 bits: in groups of `group` channels, filled up with zeros, each
// rounded to codes from -127 to 127 with a scale.
struct RoundedRow {
  size_t group;
  std::vector<int> codes;
  std::vector<float> scales;

  RoundedRow(const float* x, size_t dim, size_t group_size, float factor = 1) : group(group_size) {
    for (size_t begin = 0; begin < dim; begin += group) {
      std::vector<float> values(group, 0.0f);
      float max = 0;
      for (size_t i = 0; i < std::min(group, dim - begin); ++i) {
        values[i] = x[begin + i] * factor;
        max = std::max(max, std::fabs(values[i]));
      }
      const float inverse = max > 0x1p-100f ? 127.0f / max : 0.0f;
      for (const float value : values) codes.push_back(static_cast<int>(std::nearbyint(value * inverse)));
      scales.push_back(max / 127.0f);
    }
  }
  double operator[](size_t d) const { return double{scales[d / group]} * codes[d]; }
};

struct Config {
  size_t kv_heads, group, dim, window, sinks;
  uint64_t start;    // the first position of the stream; earlier tokens are already in the ring
  size_t tokens;     // length of the stream
  size_t max_call;   // longest call it is cut into
  double limit = 2;  // how large queries and keys are, that is, how sharp the softmax
};

struct Token {
  std::vector<float> q, q_sink, k, v;
};

class Stream {
 public:
  Stream(const Config& config, uint32_t seed) : c_(config), random_(seed) {
    ring_ = {c_.kv_heads, c_.dim, c_.window, c_.sinks, c_.max_call};
    // NaN where nothing was ever written: reading an unwritten slot cannot go unseen.
    keys_.assign(ring_.key_bytes(), std::byte{0xFF});
    values_.assign(ring_.value_bytes(), std::byte{0xFF});
    const uint64_t oldest = c_.start > c_.window ? c_.start - c_.window : 0;
    for (uint64_t s = 0; s < std::min<uint64_t>(c_.sinks, c_.start); ++s) add(s);
    for (uint64_t s = std::max<uint64_t>(c_.sinks, oldest); s < c_.start; ++s) add(s);
    for (uint64_t s = c_.start; s < c_.start + c_.tokens; ++s) add(s);
  }

  // Runs the kernels over the stream, cut into calls, each call cut into slices of the KV heads.
  std::vector<float> run(const Kernels& kernels) {
    for (const auto& [s, token] : tokens_)
      if (s < c_.start) store(kernels, s, 1);
    std::vector<float> all;
    for (uint64_t position = c_.start; position < c_.start + c_.tokens;) {
      const size_t left = static_cast<size_t>(c_.start + c_.tokens - position);
      const size_t T = std::min(left, 1 + random_.index(c_.max_call));
      store(kernels, position, T);
      const auto q = rows(position, T, &Token::q), q_sink = rows(position, T, &Token::q_sink);
      std::vector<float> y(q.size(), std::nanf(""));
      const AttentionQ8Args args{
          ring_,   {keys_.data(), values_.data()}, T, heads(), position, q.data(), q_sink.data(), scale(),
          y.data()};
      auto scratch = scratch_for(T);
      const size_t split = random_.index(c_.kv_heads + 1);
      attention_q8(kernels, args, 0, split, scratch.data());
      attention_q8(kernels, args, split, c_.kv_heads, scratch.data());
      all.insert(all.end(), y.begin(), y.end());
      position += T;
    }
    return all;
  }

  // From the rounded rows alone, never from the ring.
  std::vector<Bounded> expected() const {
    std::vector<Bounded> out;
    for (uint64_t t = c_.start; t < c_.start + c_.tokens; ++t)
      for (size_t head = 0; head < heads(); ++head) attend(t, head, out);
    return out;
  }

 private:
  size_t heads() const { return c_.kv_heads * c_.group; }
  float scale() const { return static_cast<float>(1 / std::sqrt(static_cast<double>(c_.dim))); }
  std::vector<float> scratch_for(size_t T) const {
    return std::vector<float>(attention_q8_scratch(ring_, heads(), T), std::nanf(""));
  }

  void add(uint64_t s) {
    tokens_[s] = {random_.floats(heads() * c_.dim, c_.limit), random_.floats(heads() * c_.dim, c_.limit),
                  random_.floats(c_.kv_heads * c_.dim, c_.limit), random_.floats(c_.kv_heads * c_.dim)};
    for (size_t kv = 0; kv < c_.kv_heads; ++kv) {
      rounded_k_[s].emplace_back(tokens_[s].k.data() + kv * c_.dim, c_.dim, kQ8Group);
      rounded_v_[s].emplace_back(tokens_[s].v.data() + kv * c_.dim, c_.dim, c_.dim);
    }
  }

  std::vector<float> rows(uint64_t position, size_t T, std::vector<float> Token::*part) const {
    std::vector<float> all;
    for (uint64_t s = position; s < position + T; ++s) {
      const std::vector<float>& one = tokens_.at(s).*part;
      all.insert(all.end(), one.begin(), one.end());
    }
    return all;
  }

  void store(const Kernels& kernels, uint64_t position, size_t T) {
    const auto k = rows(position, T, &Token::k), v = rows(position, T, &Token::v);
    auto scratch = scratch_for(T);
    const size_t split = c_.kv_heads / 2;
    for (const auto& [begin, end] : {std::pair{size_t{0}, split}, std::pair{split, c_.kv_heads}})
      store_kv(kernels, ring_, k.data(), v.data(), T, position, {keys_.data(), values_.data()}, begin, end,
               scratch.data());
  }

  // A score is a sum of as many products as a row has channels, with two scales, of codes that may still hold
  // their zero point of 128.
  void attend(uint64_t t, size_t head, std::vector<Bounded>& out) const {
    const Token& query = tokens_.at(t);
    const RoundedRow q(query.q.data() + head * c_.dim, c_.dim, kQ8Group, scale());
    const RoundedRow q_sink(query.q_sink.data() + head * c_.dim, c_.dim, kQ8Group, scale());
    std::vector<Bounded> scores;
    std::vector<const RoundedRow*> values;
    std::vector<size_t> tiles;
    for (const auto& [s, token] : tokens_) {
      const bool sink = s < c_.sinks && s <= t;
      const bool in_window = s >= c_.sinks && s <= t && s + c_.window > t;
      if (!sink && !in_window) continue;
      const RoundedRow& k = rounded_k_.at(s)[head / c_.group];
      double value = 0, size = 0;
      for (size_t d = 0; d < k.codes.size(); ++d) {
        const double x = (sink ? q_sink : q)[d], key_scale = double{k.scales[d / kQ8Group]};
        value += x * key_scale * k.codes[d];
        size += std::fabs(x) * key_scale * (k.codes[d] + 128 + 128);
      }
      scores.push_back({value, gamma(k.codes.size() + 4) * size});
      values.push_back(&rounded_v_.at(s)[head / c_.group]);
      tiles.push_back(ring_.slot(s) / kKeyTile);
    }
    const auto steps = weight_steps(scores, values, tiles);
    softmax_average(
        scores, c_.dim,
        [&](size_t s, size_t d) {
          const RoundedRow& v = *values[s];
          const double size = double{v.scales[0]} * (v.codes[d] + 128 + 128);  // as above
          return Bounded(v[d], steps[s] * std::abs(v.codes[d]) + gamma(size_t{8}) * size);
        },
        out);
  }

  // A key's weight times its value's scale is rounded to 8 bits as well. For a weight of 1 this is off by
  // half a step and three roundings of at most 127 (of the factor, the product and the scale), a step being
  // 1/127 of the largest such product among the keys of a tile; and by no more than all of it, as what is
  // less than half a step becomes 0.
  static std::vector<double> weight_steps(const std::vector<Bounded>& scores,
                                          const std::vector<const RoundedRow*>& values,
                                          const std::vector<size_t>& tiles) {
    const auto log_product = [&](size_t s) {
      return scores[s].value + std::log(double{values[s]->scales[0]});
    };
    std::map<size_t, double> largest;
    for (size_t s = 0; s < scores.size(); ++s) {
      double& of_tile = largest.emplace(tiles[s], -INFINITY).first->second;
      of_tile = std::max(of_tile, log_product(s));
    }
    std::vector<double> steps;
    for (size_t s = 0; s < scores.size(); ++s) {
      const double step = std::exp(largest[tiles[s]] - scores[s].value) / 127;
      steps.push_back(std::min(step * (0.5 + 127 * 3.0 * kUnit), double{values[s]->scales[0]}));
    }
    return steps;
  }

  Config c_;
  Random random_;
  KvRing ring_;
  std::map<uint64_t, Token> tokens_;
  std::map<uint64_t, std::vector<RoundedRow>> rounded_k_, rounded_v_;
  std::vector<std::byte> keys_, values_;
};

void check(const Config& c, uint32_t seed) {
  const auto want = Stream(c, seed).expected();
  for (const Kernels* kernels : all_kernels()) {
    Stream stream(c, seed);
    const std::string what = std::string(kernels->name) + " q8 Hkv=" + std::to_string(c.kv_heads) +
                             " group=" + std::to_string(c.group) + " D=" + std::to_string(c.dim) +
                             " W=" + std::to_string(c.window) + " S=" + std::to_string(c.sinks) +
                             " start=" + std::to_string(c.start) + " max call=" + std::to_string(c.max_call);
    check_within(what, stream.run(*kernels), want);
  }
}

}  // namespace

TEST_CASE("softmax_step weighs and scales the scores from begin to end, and follows the maximum") {
  for (const Kernels* kernels : all_kernels()) {
    Random random(1);
    for (const double limit : {0.5, 8.0, 150.0}) {
      Softmax state;
      for (int step = 0; step < 60; ++step) {
        const auto scores = random.floats(kKeyTile, limit), scales = random.floats(kKeyTile, 0.1);
        const size_t begin = random.index(kKeyTile), end = begin + 1 + random.index(kKeyTile - begin);
        check_step(*kernels, scores, scales, begin, end, state);
      }
    }
  }
}

TEST_CASE("softmax_step finds every single score, as a first maximum, as a new one and below an old one") {
  const std::vector<float> scales(kKeyTile, 0.25f);
  for (const Kernels* kernels : all_kernels()) {
    for (size_t j = 0; j < kKeyTile; ++j) {
      std::vector<float> scores(kKeyTile, -3.0f);
      scores[j] = 2.5f;
      for (const Softmax& before : {Softmax{}, Softmax{-1.0f, 1.5f}, Softmax{4.0f, 1.5f}}) {
        Softmax state = before;
        check_step(*kernels, scores, scales, 0, kKeyTile, state);
        state = before;
        check_step(*kernels, scores, scales, j, j + 1, state);
      }
    }
  }
}

TEST_CASE("softmax_step of no scores makes all weights 0 and changes nothing else") {
  for (const Kernels* kernels : all_kernels()) {
    for (const size_t at : {size_t{0}, size_t{5}, kKeyTile}) {
      std::vector<float> scores(kKeyTile, std::nanf(""));
      const std::vector<float> scales(kKeyTile, std::nanf(""));
      const SeenKeys none{static_cast<uint16_t>(at), static_cast<uint16_t>(at)};
      for (const Softmax& before : {Softmax{}, Softmax{1.5f, 2.5f}}) {
        Softmax state = before;
        float shrink = kUntouched;
        kernels->softmax_step(scores.data(), scales.data(), &none, 1, &state.max, &state.total, &shrink);
        CHECK(shrink == 1.0f);
        CHECK(scores == std::vector<float>(kKeyTile, 0.0f));
        CHECK((state.max == before.max && state.total == before.total));
      }
    }
  }
}

TEST_CASE("softmax_step gives every row what it gives that row alone") {
  constexpr size_t kRows = 9;
  for (const Kernels* kernels : all_kernels()) {
    Random random(3);
    const auto scales = random.floats(kKeyTile, 0.1);
    for (size_t rows = 0; rows <= kRows; ++rows) {
      auto scores = random.floats(kRows * kKeyTile, 8);
      std::vector<SeenKeys> seen;
      std::vector<float> max, total, shrink(kRows, kUntouched);
      for (size_t row = 0; row < kRows; ++row) {
        const size_t begin = random.index(kKeyTile), end = begin + random.index(kKeyTile - begin + 1);
        seen.push_back({static_cast<uint16_t>(begin), static_cast<uint16_t>(end)});
        for (size_t j = 0; j < kKeyTile; ++j)
          if (j < begin || j >= end) scores[row * kKeyTile + j] = std::nanf("");  // not to be looked at
        const bool first = row % 3 == 0;  // the others have seen keys before
        max.push_back(first ? -INFINITY : 1.0f);
        total.push_back(first ? 0.0f : 2.7f);
      }
      auto scores_alone = scores, max_alone = max, total_alone = total, shrink_alone = shrink;
      kernels->softmax_step(scores.data(), scales.data(), seen.data(), rows, max.data(), total.data(),
                            shrink.data());
      for (size_t row = 0; row < rows; ++row)
        kernels->softmax_step(scores_alone.data() + row * kKeyTile, scales.data(), &seen[row], 1,
                              &max_alone[row], &total_alone[row], &shrink_alone[row]);
      const std::string what = std::string(kernels->name) + ", rows: " + std::to_string(rows);
      const bool same = std::memcmp(scores.data(), scores_alone.data(), scores.size() * sizeof(float)) == 0;
      CHECK_MESSAGE(same, what);
      CHECK_MESSAGE((max == max_alone && total == total_alone && shrink == shrink_alone), what);
    }
  }
}

TEST_CASE("8-bit attention from an empty ring sees exactly sinks and window, however a stream is split") {
  uint32_t seed = 1;
  for (const size_t sinks : {0, 1, 5}) {
    for (const size_t window : {1, 2, 7, 33}) {
      for (const size_t max_call : {1, 3, 70}) check({2, 2, 8, window, sinks, 0, 75, max_call}, ++seed);
    }
  }
}

TEST_CASE("8-bit attention reads nothing twice or too late around each wraparound of the ring") {
  uint32_t seed = 100;
  for (uint64_t start = 0; start <= 40; ++start) {
    check({1, 2, 8, 8, 3, start, 12, 5}, ++seed);
    check({1, 1, 8, 5, 0, start, 12, 12}, ++seed);
  }
}

TEST_CASE("8-bit attention is right at positions of ten million and beyond 32 bits") {
  uint32_t seed = 200;
  for (const uint64_t start : {uint64_t{10000000}, uint64_t{4294967290}, uint64_t{1} << 40}) {
    check({2, 2, 16, 24, 4, start, 40, 30}, ++seed);
    check({2, 1, 16, 24, 0, start, 10, 1}, ++seed);
  }
}

TEST_CASE("8-bit attention handles every head dimension and group size") {
  uint32_t seed = 300;
  for (const size_t dim : {1, 7, 16, 33, 64, 65, 80, 128, 192}) {
    for (const size_t group : {1, 2, 3, 4, 7}) check({2, group, dim, 9, 2, 11, 12, 6}, ++seed);
  }
}

TEST_CASE("8-bit attention with more keys than a tile and more queries than a block has") {
  check({1, 1, 16, 100, 70, 0, 290, 290}, 401);  // sinks and window of several tiles, 256 queries and some
  check({1, 2, 16, 150, 4, 1000, 9, 1}, 402);    // one token at a time
  check({1, 4, 64, 130, 5, 290, 70, 70}, 403);
  check({2, 300, 8, 6, 1, 4, 3, 3}, 404);  // a group larger than a block of queries
}

TEST_CASE("8-bit attention with scores in the hundreds neither overflows nor loses the maximum") {
  check({1, 2, 16, 40, 3, 100, 30, 8, 20}, 501);
  check({1, 2, 64, 40, 3, 0, 50, 50, 20}, 502);
}

TEST_CASE("a ring's bytes are counted beyond 32 bits") {
  const KvRing ring{.kv_heads = 328'992, .dim = 2, .window = 1, .sinks = 0, .block = 128};
  CHECK(ring.key_bytes() == 4'295'319'552u);  // 192 slots of 64 codes and a scale for each head
  CHECK(ring.value_bytes() == 378'998'784u);
}
