// The sampler: filters in exact, platform-independent order, then one draw from what is left. Of a vocabulary
// only the tokens that can matter become candidates, so that most logits are looked at and no more.
#include "runtime/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numbers>
#include <string>

#include "platform/error.h"
#include "platform/wipe.h"

namespace allmem {
namespace {

// `allowed` is checked so that NaN fails it.
void require(bool allowed, const char* name, double value, const char* range) {
  if (!allowed) {
    std::string shown = std::isnan(value) ? "NaN" : std::to_string(value);
    throw Error(ErrorCode::kInvalidArgument,
                std::string("The sampling option ") + name + " is " + shown + "; it must be " + range + ".");
  }
}

const SamplerOptions& checked(const SamplerOptions& o) {
  require(o.temperature >= 0.0f && std::isfinite(o.temperature), "temperature", o.temperature,
          "a finite number of at least 0");
  require(o.top_k >= 0, "top_k", o.top_k, "at least 0 (0 keeps every token)");
  require(o.top_p > 0.0f && o.top_p <= 1.0f, "top_p", o.top_p, "greater than 0 and at most 1");
  require(o.min_p >= 0.0f && o.min_p <= 1.0f, "min_p", o.min_p, "between 0 and 1");
  require(o.repetition_penalty >= 0.1f && o.repetition_penalty <= 10.0f, "repetition_penalty",
          o.repetition_penalty, "between 0.1 and 10");
  require(o.repetition_window >= 0 && o.repetition_window <= (1 << 20), "repetition_window",
          o.repetition_window, "between 0 and 1048576");
  return o;
}

// In the order of the ids.
std::vector<LogitBias> checked_bias(std::vector<LogitBias> bias, size_t vocab_size) {
  for (const LogitBias& of : bias) {
    if (of.id < 0 || static_cast<size_t>(of.id) >= vocab_size) {
      throw Error(ErrorCode::kInvalidArgument, "The sampling option logit_bias has the token " +
                                                   std::to_string(of.id) + "; the model's are 0 to " +
                                                   std::to_string(vocab_size - 1) + ".");
    }
    require((of.bias >= -100.0f && of.bias <= 100.0f) || of.bias == -std::numeric_limits<float>::infinity(),
            "logit_bias", of.bias, "between -100 and 100, or minus infinity");
  }
  std::ranges::stable_sort(bias, {}, &LogitBias::id);
  return bias;
}

size_t checked_vocab(size_t vocab_size) {
  if (vocab_size == 0 || vocab_size > static_cast<size_t>(std::numeric_limits<int32_t>::max())) {
    throw Error(ErrorCode::kInvalidArgument,
                "A sampler cannot be made for a vocabulary of " + std::to_string(vocab_size) + " tokens.");
  }
  return vocab_size;
}

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// The largest of the logits; infinity if there is a NaN. In lanes, as compilers do not reorder such a loop.
float largest_logit(std::span<const float> logits) {
  constexpr size_t kLanes = 16;
  std::array<float, kLanes> largest;
  largest.fill(-kInfinity);
  const auto see = [&largest](size_t lane, float logit) {
    const float number = logit < kInfinity ? logit : kInfinity;
    largest[lane] = number > largest[lane] ? number : largest[lane];
  };
  size_t i = 0;
  for (; i + kLanes <= logits.size(); i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) see(lane, logits[i + lane]);
  }
  for (; i < logits.size(); ++i) see(0, logits[i]);
  return *std::ranges::max_element(largest);
}

// The token with the largest logit, of equals the lowest.
size_t most_likely(std::span<const float> logits) {
  constexpr size_t kBlock = 1024;
  float largest = -kInfinity;
  size_t block = 0;
  for (size_t begin = 0; begin < logits.size(); begin += kBlock) {
    const float here = largest_logit(logits.subspan(begin, std::min(kBlock, logits.size() - begin)));
    if (here > largest) {
      largest = here;
      block = begin;
    }
  }
  size_t id = block;
  if (largest < kInfinity) {
    while (logits[id] != largest) ++id;
    return id;
  }
  while (logits[id] < kInfinity) ++id;
  throw Error(ErrorCode::kBadModel,
              "The logit of token " + std::to_string(id) +
                  " is not a finite number, so no token can be chosen; the model or its state is broken.");
}

}  // namespace

Random::Random(uint64_t seed) {
  for (uint64_t& word : state_) {  // splitmix64: never leaves the all-zero state that xoshiro cannot leave
    uint64_t z = (seed += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    word = z ^ (z >> 31);
  }
}

Random::Random(const std::array<uint64_t, 4>& state) : state_(state) {
  if (std::ranges::all_of(state, [](uint64_t word) { return word == 0; })) {
    refuse_snapshot("the state of its random numbers is all zeros");
  }
}

uint64_t Random::next() {
  const uint64_t result = std::rotl(state_[1] * 5, 7) * 9;
  const uint64_t shifted = state_[1] << 17;
  state_[2] ^= state_[0];
  state_[3] ^= state_[1];
  state_[1] ^= state_[2];
  state_[0] ^= state_[3];
  state_[2] ^= shifted;
  state_[3] = std::rotl(state_[3], 45);
  return result;
}

double Random::uniform() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }

Sampler::Sampler(const SamplerOptions& options, size_t vocab_size)
    : options_(checked(options)),
      random_(options.seed),
      candidates_(checked_vocab(vocab_size)),
      changed_(vocab_size),
      recent_(static_cast<size_t>(options.repetition_window)),
      penalised_(recent_.size()) {
  options_.logit_bias = checked_bias(std::move(options_.logit_bias), vocab_size);
}

namespace {

SamplerOptions read_options(ByteReader& from) {
  SamplerOptions o;
  o.temperature =
      from.number<float>();  // in the order of save(): a format's fields do not grow with the struct
  o.top_k = from.number<int32_t>();
  o.top_p = from.number<float>();
  o.min_p = from.number<float>();
  o.repetition_penalty = from.number<float>();
  o.repetition_window = from.number<int32_t>();
  o.seed = from.number<uint64_t>();
  try {
    return checked(o);
  } catch (const Error&) {
    refuse_snapshot("its sampling options are out of their range");
  }
}

}  // namespace

Sampler::Sampler(ByteReader& from, size_t vocab_size) : Sampler(read_options(from), vocab_size) {
  std::array<uint64_t, 4> state;
  for (uint64_t& word : state) word = from.number<uint64_t>();
  random_ = Random(state);
  for (const int32_t id : from.list<int32_t>(recent_.size())) {
    if (id < 0 || static_cast<size_t>(id) >= vocab_size) {
      refuse_snapshot("a recent token is outside the vocabulary");
    }
    accept(id);
  }
}

void Sampler::save(ByteWriter& to) const {
  to.number(options_.temperature);
  to.number(options_.top_k);
  to.number(options_.top_p);
  to.number(options_.min_p);
  to.number(options_.repetition_penalty);
  to.number(options_.repetition_window);
  to.number(options_.seed);
  for (const uint64_t word : random_.state()) to.number(word);
  WipedVector<int32_t> oldest_first(recent_size_);
  for (size_t i = 0; i < recent_size_; ++i) {
    oldest_first[i] = recent_[(recent_next_ + recent_.size() - recent_size_ + i) % recent_.size()];
  }
  to.list(std::span<const int32_t>(oldest_first));
}

// A total order, so that every standard library sorts equally.
bool Sampler::more_likely(const Candidate& a, const Candidate& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

void Sampler::save_bias(ByteWriter& to) const {
  to.number(uint64_t{options_.logit_bias.size()});
  for (const LogitBias& of : options_.logit_bias) {
    to.number(of.id);
    to.number(of.bias);
  }
}

void Sampler::load_bias(ByteReader& from) {
  std::vector<LogitBias> bias;
  for (auto left = from.number<uint64_t>(); left > 0; --left) {
    const auto id = from.number<int32_t>();
    bias.push_back({id, from.number<float>()});
  }
  try {
    options_.logit_bias = checked_bias(std::move(bias), candidates_.size());
  } catch (const Error&) {
    refuse_snapshot("its logit bias is out of its range");
  }
}

// In changed_, if they change.
std::span<const float> Sampler::with_bias_and_penalty(std::span<const float> logits) {
  const float penalty = options_.repetition_penalty;
  const bool penalises = penalty != 1.0f && recent_size_ > 0;
  if (options_.logit_bias.empty() && !penalises) return logits;
  const size_t n = logits.size();
  std::ranges::copy(logits, changed_.begin());
  for (const LogitBias& of : options_.logit_bias) {
    if (static_cast<size_t>(of.id) < n) changed_[static_cast<size_t>(of.id)] += of.bias;
  }
  if (penalises) {
    // Computed for all before any is written: a token that is there twice is penalised once.
    for (size_t i = 0; i < recent_size_; ++i) {
      const auto id = static_cast<size_t>(recent_[i]);
      if (id < n) penalised_[i] = changed_[id] > 0.0f ? changed_[id] / penalty : changed_[id] * penalty;
    }
    for (size_t i = 0; i < recent_size_; ++i) {
      const auto id = static_cast<size_t>(recent_[i]);
      if (id < n) changed_[id] = penalised_[i];
    }
  }
  return std::span<const float>(changed_).first(n);
}

// In changed_: what is not allowed is minus infinity.
std::span<const float> Sampler::with_mask(std::span<const float> logits, std::span<const uint32_t> allowed) {
  for (size_t i = 0; i < logits.size(); ++i) {
    changed_[i] = (allowed[i / 32] >> (i % 32) & 1) != 0 ? logits[i] : -kInfinity;
  }
  return std::span<const float>(changed_).first(logits.size());
}

// Leaves out tokens of a weight below 2^-53 / n. All of them together weigh less than 2^-53 of the most
// likely token: half a unit in the last place of the sum of weights, and less than the smallest step of
// uniform(). With top-k, what is left is sorted.
void Sampler::load(std::span<const float> logits, float best) {
  const size_t n = logits.size(), k = static_cast<size_t>(options_.top_k);
  const double below = static_cast<double>(options_.temperature) * std::numbers::ln2 *
                       static_cast<double>(53 + std::bit_width(n));
  float least = static_cast<float>(
      std::max(static_cast<double>(best) - below, static_cast<double>(std::numeric_limits<float>::lowest())));
  const bool few = k > 0 && k < n;
  const size_t room = few ? std::min(n, 2 * k + 1024) : n;
  size_t live = 0;
  for (size_t i = 0; i < n; ++i) {  // without a branch, which would often be guessed wrongly
    candidates_[live] = {logits[i], static_cast<int32_t>(i), 0.0};
    live += static_cast<size_t>(logits[i] >= least);
    if (few && live == room) {  // only the k best of these can be among the k best
      const auto begin = candidates_.begin(), kth = begin + static_cast<ptrdiff_t>(k - 1);
      std::nth_element(begin, kth, begin + static_cast<ptrdiff_t>(live), more_likely);
      least = kth->logit;
      live = k;
    }
  }
  live_ = live;
  if (few) {
    live_ = std::min(live, k);
    std::partial_sort(candidates_.begin(), candidates_.begin() + static_cast<ptrdiff_t>(live_),
                      candidates_.begin() + static_cast<ptrdiff_t>(live), more_likely);
  }
}

// Takes the most likely candidates off a heap until their mass is reached: no sort of the whole vocabulary.
void Sampler::keep_top_p() {
  if (options_.top_p >= 1.0f) return;
  double total = 0.0;
  for (size_t i = 0; i < live_; ++i) total += candidates_[i].weight;
  const double wanted = static_cast<double>(options_.top_p) * total;
  const auto less_likely = [](const Candidate& a, const Candidate& b) { return more_likely(b, a); };
  const auto begin = candidates_.begin();
  auto end = begin + static_cast<ptrdiff_t>(live_);
  // Even all together, what weighs less than `least` is at most half of the mass that is left out.
  const double least = (total - wanted) / (2.0 * static_cast<double>(live_));
  end = std::remove_if(begin, end, [least](const Candidate& c) { return c.weight < least; });
  live_ = static_cast<size_t>(end - begin);
  std::make_heap(begin, end, less_likely);
  double mass = 0.0;
  size_t kept = 0;
  while (end != begin && (kept == 0 || mass < wanted)) {
    std::pop_heap(begin, end, less_likely);
    --end;
    mass += end->weight;
    ++kept;
  }
  // The kept ones lie behind the heap, least likely first.
  std::reverse(end, begin + static_cast<ptrdiff_t>(live_));
  std::copy(end, end + static_cast<ptrdiff_t>(kept), begin);
  live_ = kept;
}

int32_t Sampler::draw() {
  const double floor = static_cast<double>(options_.min_p);  // the most likely candidate weighs 1
  double total = 0.0;
  size_t kept = 0;
  for (size_t i = 0; i < live_; ++i) {
    if (candidates_[i].weight < floor) continue;
    total += candidates_[i].weight;
    candidates_[kept++] = candidates_[i];
  }
  double left = random_.uniform() * total;
  for (size_t i = 0; i < kept; ++i) {
    left -= candidates_[i].weight;
    if (left < 0.0) return candidates_[i].id;
  }
  // Rounding left a crumb: the last candidate that weighs anything.
  while (kept > 1 && candidates_[kept - 1].weight <= 0.0) --kept;
  return candidates_[kept - 1].id;
}

std::optional<int32_t> Sampler::sample(std::span<const float> logits, std::span<const uint32_t> allowed) {
  if (logits.empty() || logits.size() > candidates_.size()) {
    throw Error(ErrorCode::kInvalidArgument, "The sampler was made for up to " +
                                                 std::to_string(candidates_.size()) + " logits and got " +
                                                 std::to_string(logits.size()) + ".");
  }
  logits = with_bias_and_penalty(logits);
  size_t id = most_likely(logits);  // before the mask, as a broken logit is an error wherever it is
  if (!allowed.empty()) {
    logits = with_mask(logits, allowed);
    id = most_likely(logits);
  }
  const float best = logits[id];
  if (best == -kInfinity) return std::nullopt;
  if (options_.temperature == 0.0f) return static_cast<int32_t>(id);
  load(logits, best);
  const double temperature = static_cast<double>(options_.temperature);
  for (size_t i = 0; i < live_; ++i) {
    const double below = static_cast<double>(candidates_[i].logit) - static_cast<double>(best);
    candidates_[i].weight = std::exp(below / temperature);
  }
  keep_top_p();
  return draw();
}

void Sampler::wipe() {
  wipe_memory(std::as_writable_bytes(std::span(candidates_)));
  wipe_memory(std::as_writable_bytes(std::span(changed_)));
  wipe_memory(std::as_writable_bytes(std::span(recent_)));
  wipe_memory(std::as_writable_bytes(std::span(penalised_)));
  random_ = Random(options_.seed);
  live_ = recent_next_ = recent_size_ = 0;
}

void Sampler::accept(int32_t id) {
  if (id < 0 || static_cast<size_t>(id) >= candidates_.size()) {
    throw Error(ErrorCode::kInvalidArgument, "Token " + std::to_string(id) +
                                                 " is outside the sampler's vocabulary of " +
                                                 std::to_string(candidates_.size()) + " tokens.");
  }
  if (recent_.empty()) return;
  recent_size_ = std::min(recent_size_ + 1, recent_.size());
  recent_[recent_next_] = id;
  recent_next_ = (recent_next_ + 1) % recent_.size();
}

}  // namespace allmem
