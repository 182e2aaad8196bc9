// Window attention of every table against a brute-force list of (query, key) pairs, over streams cut at
// random.
#include <algorithm>
#include <map>

#include "bounded.h"

using namespace allmem;
using namespace allmem::test;

namespace {

struct Config {
  size_t kv_heads, group, dim, window, sinks;
  uint64_t start;          // the first position of the stream; earlier tokens are already in the ring
  size_t tokens;           // length of the stream
  size_t max_call;         // longest call it is cut into
  double query_limit = 2;  // how large queries and keys are, that is, how sharp the softmax
};

struct Token {
  std::vector<float> q, q_sink, k, v;
};

// A stream of random tokens, and the ring as the runtime keeps it.
class Stream {
 public:
  Stream(const Config& config, uint32_t seed) : c_(config), random_(seed) {
    const size_t ring = c_.kv_heads * (c_.sinks + c_.window) * c_.dim;
    // NaN where nothing was ever written: reading an unwritten slot cannot go unseen.
    k_ring_.assign(ring, std::nanf(""));
    v_ring_.assign(ring, std::nanf(""));
    for (uint64_t s = 0; s < std::min<uint64_t>(c_.sinks, c_.start); ++s) add(s), store(s);
    const uint64_t oldest = c_.start > c_.window ? c_.start - c_.window : 0;
    for (uint64_t s = std::max<uint64_t>(c_.sinks, oldest); s < c_.start; ++s) add(s), store(s);
    for (uint64_t s = c_.start; s < c_.start + c_.tokens; ++s) add(s);
  }

  // Runs the kernel over the stream, cut into calls, each call cut into slices of the KV heads.
  std::vector<float> run(const Kernels& kernels) {
    const size_t heads = c_.kv_heads * c_.group;
    std::vector<float> all;
    for (uint64_t position = c_.start; position < c_.start + c_.tokens;) {
      const size_t left = static_cast<size_t>(c_.start + c_.tokens - position);
      const size_t T = std::min(left, 1 + random_.index(c_.max_call));
      std::vector<float> q, q_sink, k, v;
      for (uint64_t s = position; s < position + T; ++s) {
        const Token& token = tokens_.at(s);
        q.insert(q.end(), token.q.begin(), token.q.end());
        q_sink.insert(q_sink.end(), token.q_sink.begin(), token.q_sink.end());
        k.insert(k.end(), token.k.begin(), token.k.end());
        v.insert(v.end(), token.v.begin(), token.v.end());
      }
      std::vector<float> y(T * heads * c_.dim, std::nanf(""));
      const AttentionArgs args{T,        heads,          c_.kv_heads,    c_.dim,        c_.window,
                               c_.sinks, position,       q.data(),       q_sink.data(), k.data(),
                               v.data(), k_ring_.data(), v_ring_.data(), scale(),       y.data()};
      std::vector<float> scratch(kernels.attention_scratch(args), std::nanf(""));
      const size_t split = random_.index(c_.kv_heads + 1);
      kernels.attention(args, 0, split, scratch.data());
      kernels.attention(args, split, c_.kv_heads, scratch.data());
      all.insert(all.end(), y.begin(), y.end());
      for (uint64_t s = position; s < position + T; ++s) store(s);
      position += T;
    }
    return all;
  }

  std::vector<Bounded> expected() const {
    std::vector<Bounded> out;
    for (uint64_t t = c_.start; t < c_.start + c_.tokens; ++t)
      for (size_t head = 0; head < c_.kv_heads * c_.group; ++head) attend(t, head, out);
    return out;
  }

 private:
  float scale() const { return static_cast<float>(1 / std::sqrt(static_cast<double>(c_.dim))); }

  void add(uint64_t s) {
    const size_t heads = c_.kv_heads * c_.group;
    tokens_[s] = {random_.floats(heads * c_.dim, c_.query_limit),
                  random_.floats(heads * c_.dim, c_.query_limit),
                  random_.floats(c_.kv_heads * c_.dim, c_.query_limit), random_.floats(c_.kv_heads * c_.dim)};
  }

  void store(uint64_t s) {
    const size_t slot = static_cast<size_t>(s < c_.sinks ? s : c_.sinks + (s - c_.sinks) % c_.window);
    for (size_t kv = 0; kv < c_.kv_heads; ++kv) {
      const size_t to = (kv * (c_.sinks + c_.window) + slot) * c_.dim;
      const Token& token = tokens_.at(s);
      std::copy_n(token.k.begin() + static_cast<long>(kv * c_.dim), c_.dim,
                  k_ring_.begin() + static_cast<long>(to));
      std::copy_n(token.v.begin() + static_cast<long>(kv * c_.dim), c_.dim,
                  v_ring_.begin() + static_cast<long>(to));
    }
  }

  void attend(uint64_t t, size_t head, std::vector<Bounded>& out) const {
    std::vector<Bounded> scores;
    std::vector<const float*> values;
    for (const auto& [s, token] : tokens_) {
      const bool sink = s < c_.sinks && s <= t;
      const bool in_window = s >= c_.sinks && s <= t && s + c_.window > t;
      if (!sink && !in_window) continue;
      const float* q = (sink ? tokens_.at(t).q_sink : tokens_.at(t).q).data() + head * c_.dim;
      const float* k = token.k.data() + head / c_.group * c_.dim;
      const Bounded score = dot(
          c_.dim, [&](size_t d) { return q[d]; }, [&](size_t d) { return k[d]; }, 2);
      scores.push_back({score.value * double{scale()}, score.error * double{scale()}});
      values.push_back(token.v.data() + head / c_.group * c_.dim);
    }
    softmax_average(
        scores, c_.dim, [&](size_t s, size_t d) { return values[s][d]; }, out);
  }

  Config c_;
  Random random_;
  std::map<uint64_t, Token> tokens_;
  std::vector<float> k_ring_, v_ring_;
};

void check(const Config& c, uint32_t seed) {
  for (const Kernels* kernels : kernels_by(&Kernels::attention)) {
    Stream stream(c, seed);
    const auto want = stream.expected();
    const std::string what = std::string(kernels->name) + " Hkv=" + std::to_string(c.kv_heads) +
                             " group=" + std::to_string(c.group) + " D=" + std::to_string(c.dim) +
                             " W=" + std::to_string(c.window) + " S=" + std::to_string(c.sinks) +
                             " start=" + std::to_string(c.start) + " max call=" + std::to_string(c.max_call);
    check_within(what, stream.run(*kernels), want);
  }
}

}  // namespace

TEST_CASE("from an empty ring, every split of a stream attends to exactly the sinks and the window") {
  uint32_t seed = 1;
  for (const size_t sinks : {0, 1, 2, 5}) {
    for (const size_t window : {1, 2, 7, 16, 33}) {
      for (const size_t max_call : {1, 3, 70}) check({2, 2, 8, window, sinks, 0, 80, max_call}, ++seed);
    }
  }
}

TEST_CASE("around each wraparound of the ring nothing is read twice or too late") {
  uint32_t seed = 100;
  for (uint64_t start = 0; start <= 40; ++start) {
    check({1, 2, 8, 8, 3, start, 12, 5}, ++seed);
    check({1, 1, 8, 5, 0, start, 12, 12}, ++seed);
  }
}

TEST_CASE("attention is right at positions of ten million and beyond 32 bits") {
  uint32_t seed = 200;
  for (const uint64_t start : {uint64_t{10000000}, uint64_t{4294967290}, uint64_t{1} << 40}) {
    check({2, 2, 16, 24, 4, start, 60, 30}, ++seed);
    check({2, 1, 16, 24, 0, start, 10, 1}, ++seed);
  }
}

TEST_CASE("attention handles every head dimension and group size") {
  uint32_t seed = 300;
  for (const size_t dim : {1, 2, 3, 7, 8, 9, 16, 17, 24, 31, 32, 33, 40, 64, 65, 80, 96, 127, 128}) {
    for (const size_t group : {1, 2, 3, 4}) check({2, group, dim, 9, 2, 11, 14, 6}, ++seed);
  }
}

TEST_CASE("a call much longer than the window, and a window much longer than the call") {
  check({1, 2, 16, 6, 2, 3, 200, 200}, 401);
  check({1, 2, 16, 300, 4, 1000, 9, 1}, 402);
  check({1, 3, 32, 150, 5, 290, 70, 70}, 403);
  check({2, 1, 16, 64, 0, 63, 70, 33}, 404);
}

TEST_CASE("sharp softmaxes with scores in the hundreds neither overflow nor lose the maximum") {
  check({1, 2, 16, 40, 3, 100, 30, 8, 20}, 501);
  check({1, 2, 64, 40, 3, 0, 50, 50, 20}, 502);
}

TEST_CASE("attention of no KV heads or no tokens writes nothing") {
  for (const Kernels* kernels : all_kernels()) {
    Stream stream({2, 2, 8, 4, 1, 0, 1, 1}, 600);
    const std::vector<float> in(64), ring(160);
    std::vector<float> y(32, 5.0f);
    AttentionArgs args{1,         4,         2,         8,           4,           1, 0,       in.data(),
                       in.data(), in.data(), in.data(), ring.data(), ring.data(), 1, y.data()};
    std::vector<float> scratch(kernels->attention_scratch(args));
    kernels->attention(args, 1, 1, scratch.data());
    args.tokens = 0;
    kernels->attention(args, 0, 2, scratch.data());
    CHECK(y == std::vector<float>(32, 5.0f));
  }
}
