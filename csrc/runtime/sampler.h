// Picks the next token from logits: bias, repetition penalty, temperature, top-k, top-p, min-p, seed.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "platform/wipe.h"
#include "runtime/bytes.h"

namespace allmem {

struct LogitBias {
  int32_t id;
  float bias;  // [-100, 100], or minus infinity: never this token
};

struct SamplerOptions {
  float temperature = 0.0f;  // finite, >= 0; 0 takes the most likely token (of equals, the lowest id)
  int32_t top_k = 0;         // >= 0; keep the k most likely tokens; 0 keeps all
  float top_p = 1.0f;        // (0, 1]; keep the smallest set of most likely tokens with at least this mass
  float min_p = 0.0f;        // [0, 1]; drop tokens less likely than min_p times the most likely one
  float repetition_penalty =
      1.0f;  // [0.1, 10]; divides the positive and multiplies the negative recent logits
  int32_t repetition_window = 64;  // [0, 1048576]; how many of the last accepted tokens count as recent
  uint64_t seed = 0;               // the same seed and logits give the same tokens on every platform
  std::vector<LogitBias> logit_bias = {};  // added to the logits first; of a token that is there twice, both
};

// Every option that is one number, by its name: calls visit(name, field of the first, field of the second,
// ...). Whatever reads options, copies or hands them on goes through here; the fields of `allmem_sampling`
// have the same names. CONTRIBUTING.md has the recipe for a new one.
template <class Visit, class... Options>
void each_sampling_option(const Visit& visit, Options&... options) {
  visit("temperature", options.temperature...);
  visit("top_k", options.top_k...);
  visit("top_p", options.top_p...);
  visit("min_p", options.min_p...);
  visit("repetition_penalty", options.repetition_penalty...);
  visit("repetition_window", options.repetition_window...);
  visit("seed", options.seed...);
}

// xoshiro256**, seeded by splitmix64: 64 bits a step, defined by its own code and so equal everywhere.
class Random {
 public:
  explicit Random(uint64_t seed);
  explicit Random(const std::array<uint64_t, 4>& state);  // throws kBadSnapshot for the one it cannot leave
  uint64_t next();
  double uniform();  // [0, 1), multiples of 2^-53
  const std::array<uint64_t, 4>& state() const { return state_; }

 private:
  std::array<uint64_t, 4> state_;
};

// A value: a copy continues as the original would. Allocates only when constructed.
class Sampler {
 public:
  // `vocab_size` > 0 is the longest logits that sample() takes. Throws Error (kInvalidArgument) naming the
  // option that is out of its range.
  Sampler(const SamplerOptions& options, size_t vocab_size);

  // Its options but the bias, random state and recent tokens, and a sampler that goes on from them. The
  // constructor throws kBadSnapshot.
  void save(ByteWriter& to) const;
  Sampler(ByteReader& from, size_t vocab_size);
  // The bias, which few have: a snapshot holds it only then, at its end.
  bool has_bias() const { return !options_.logit_bias.empty(); }
  void save_bias(ByteWriter& to) const;
  void load_bias(ByteReader& from);

  // The next token, not yet accepted; nothing when no token is possible. `logits`: 1 to vocab_size of them,
  // else Error (kInvalidArgument). Minus infinity is probability 0; NaN and infinity are Error (kBadModel).
  // `allowed`: bit i % 32 of word i / 32 says whether token i may be drawn; empty allows all. Bias and
  // penalty change the logits, then temperature, top-k, top-p, min-p apply in this order, each to what the
  // one before it left.
  std::optional<int32_t> sample(std::span<const float> logits, std::span<const uint32_t> allowed = {});

  // Where the sequence of random numbers is, and back to there: to undo a draw.
  const Random& random() const { return random_; }
  void set_random(const Random& random) { random_ = random; }

  // Remembers `id` (in [0, vocab_size), else Error) for the repetition penalty.
  void accept(int32_t id);

  // As newly constructed, with what it remembered overwritten.
  void wipe();

  const SamplerOptions& options() const { return options_; }

 private:
  struct Candidate {
    float logit;
    int32_t id;
    double weight;  // exp((logit - largest) / temperature), in (0, 1]
  };
  static bool more_likely(const Candidate& a, const Candidate& b);
  std::span<const float> with_bias_and_penalty(std::span<const float> logits);
  std::span<const float> with_mask(std::span<const float> logits, std::span<const uint32_t> allowed);
  void load(std::span<const float> logits, float best);
  void keep_top_p();
  int32_t draw();

  SamplerOptions options_;
  Random random_;
  WipedVector<Candidate> candidates_;  // vocab_size
  size_t live_ = 0;                    // how many of them are still in the race
  WipedVector<float> changed_;         // [vocab_size], logits after bias, penalty and mask
  WipedVector<int32_t> recent_;        // a ring of the last accepted ids
  size_t recent_next_ = 0, recent_size_ = 0;
  WipedVector<float> penalised_;  // the logits of recent_
};

}  // namespace allmem
