// The sampler: filters in exact, platform-independent order, then one draw from what is left.
#include "runtime/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
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
      recent_(static_cast<size_t>(options.repetition_window)),
      recent_count_(vocab_size) {
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

void Sampler::load(std::span<const float> logits, std::span<const uint32_t> allowed) {
  if (logits.empty() || logits.size() > candidates_.size()) {
    throw Error(ErrorCode::kInvalidArgument, "The sampler was made for up to " +
                                                 std::to_string(candidates_.size()) + " logits and got " +
                                                 std::to_string(logits.size()) + ".");
  }
  const float penalty = options_.repetition_penalty;
  auto bias = options_.logit_bias.cbegin();
  live_ = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    float logit = logits[i];
    for (; bias != options_.logit_bias.cend() && bias->id == static_cast<int32_t>(i); ++bias) {
      logit += bias->bias;
    }
    if (recent_count_[i] > 0) logit = logit > 0.0f ? logit / penalty : logit * penalty;
    if (!(logit < std::numeric_limits<float>::infinity())) {
      throw Error(
          ErrorCode::kBadModel,
          "The logit of token " + std::to_string(i) +
              " is not a finite number, so no token can be chosen; the model or its state is broken.");
    }
    if (logit == -std::numeric_limits<float>::infinity()) continue;
    if (!allowed.empty() && (allowed[i / 32] >> (i % 32) & 1) == 0) continue;
    candidates_[live_++] = {logit, static_cast<int32_t>(i), 0.0};
  }
}

void Sampler::keep_top_k() {
  const size_t k = static_cast<size_t>(options_.top_k);
  if (k == 0 || k >= live_) return;
  const auto begin = candidates_.begin();
  std::partial_sort(begin, begin + static_cast<ptrdiff_t>(k), begin + static_cast<ptrdiff_t>(live_),
                    more_likely);
  live_ = k;
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
  load(logits, allowed);
  if (live_ == 0) return std::nullopt;
  const Candidate best = *std::min_element(candidates_.begin(),
                                           candidates_.begin() + static_cast<ptrdiff_t>(live_), more_likely);
  if (options_.temperature == 0.0f) return best.id;
  keep_top_k();
  const double temperature = static_cast<double>(options_.temperature);
  for (size_t i = 0; i < live_; ++i) {
    const double below = static_cast<double>(candidates_[i].logit) - static_cast<double>(best.logit);
    candidates_[i].weight = std::exp(below / temperature);
  }
  keep_top_p();
  return draw();
}

void Sampler::wipe() {
  wipe_memory(std::as_writable_bytes(std::span(candidates_)));
  wipe_memory(std::as_writable_bytes(std::span(recent_)));
  wipe_memory(std::as_writable_bytes(std::span(recent_count_)));
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
  if (recent_size_ == recent_.size()) {
    --recent_count_[static_cast<size_t>(recent_[recent_next_])];
  } else {
    ++recent_size_;
  }
  recent_[recent_next_] = id;
  recent_next_ = (recent_next_ + 1) % recent_.size();
  ++recent_count_[static_cast<size_t>(id)];
}

}  // namespace allmem
