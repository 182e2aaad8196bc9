// The generate loop: reads a prompt, samples tokens, hands out their text piece by piece.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/sampler.h"
#include "runtime/session.h"
#include "tokenizer/tokenizer.h"

namespace allmem {

constexpr size_t kMaxStops = 256;
constexpr size_t kMaxStopBytes = size_t{64} << 10;

struct GenerateOptions {
  SamplerOptions sampling = {};
  int64_t max_tokens = 512;  // >= 0
  // UTF-8, none empty, at most kMaxStops of kMaxStopBytes; the text ends before the first of them, wherever
  // tokens break. One that is a special token is a stop token too: such tokens have no text.
  std::vector<std::string> stop = {};
  std::vector<int32_t> stop_ids = {};  // tokens that end the text and are neither shown nor read
  bool speculate = true;               // reads drafts where that is likely to be faster; the text is the same
};

// Those of `ids` that a vocabulary has, in their order and each once.
template <class Ids>
Ids known_ids(Ids ids, size_t vocab_size) {
  std::erase_if(ids, [&](int32_t id) { return id < 0 || static_cast<size_t>(id) >= vocab_size; });
  std::ranges::sort(ids);
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

// kNoToken: bias and filter leave no token that could follow.
enum class FinishReason { kNone, kStopToken, kStopString, kMaxTokens, kNoToken };

struct GenerateStats {
  size_t prompt_tokens = 0;     // read so far
  size_t prompt_left = 0;       // still to be read
  size_t generated_tokens = 0;  // sampled, without a stop token
  size_t drafted_tokens = 0;    // read before they were sampled, since this was made
  size_t accepted_tokens = 0;   // those of them that were sampled then
  double prefill_seconds = 0.0;
  double decode_seconds = 0.0;
  FinishReason finish = FinishReason::kNone;
};

// One stop string, looked for in a text that comes in pieces, in linear time (Knuth, Morris, Pratt).
class StopText {
 public:
  explicit StopText(std::string_view text);  // not empty
  // Takes the next piece. At which of its bytes the string was complete, if it was; then that was all.
  std::optional<size_t> read(std::string_view more);
  size_t begun() const { return begun_; }  // with how many bytes of the string the text ends
  std::string_view text() const { return text_; }

 private:
  size_t with_next(size_t begun, char next) const;

  WipedString text_;
  WipedVector<uint32_t> borders_;  // [i]: how many of the first bytes also end the first i + 1, not all
  size_t begun_ = 0;
};

// Lets text through up to the first stop string, holding back what could still become one.
class StopFilter {
 public:
  // Throws Error (kInvalidArgument) if one is empty or too long, or there are too many.
  explicit StopFilter(std::span<const std::string> stop);
  std::string push(std::string_view text);  // the text that is now certain to be shown
  std::string flush();                      // what was held back, when the text ends without a stop
  bool stopped() const { return stopped_; }

  std::span<const StopText> stop() const { return stop_; }
  // What is held back: all that a filter remembers before it stops. A new one that is given it goes on alike.
  std::string_view pending() const { return pending_; }

 private:
  WipedVector<StopText> stop_;
  WipedString pending_;
  bool stopped_ = false;
};

// Runs the model on `ids`; has the contract of Session::forward.
using Forward =
    std::function<size_t(std::span<const int32_t> ids, LogitsFor which, std::span<float> logits, GoOn go_on)>;

// A model that reads drafts.
class Speculation {
 public:
  virtual ~Speculation() = default;
  // Writes what may follow once `next` is read; returns how many tokens that is, 0 for none.
  virtual size_t draft(int32_t next, std::span<int32_t> room) = 0;
  // As Session::speculate(), with logits [ids, vocab_size] that `accept` is given.
  using Accept = FunctionRef<size_t(std::span<const float> logits)>;
  virtual void read(std::span<const int32_t> ids, Accept accept) = 0;
};

// How such a function reads: read(begin, count) takes the next `count` <= block of `total` tokens, until all
// are read or `go_on` ends it. Returns how many were.
template <class Read>
size_t in_blocks(size_t total, size_t block, GoOn go_on, const Read& read) {
  size_t begin = 0;
  while (begin < total) {
    if (begin > 0 && !go_on(begin)) break;
    const size_t count = std::min(block, total - begin);
    read(begin, count);
    begin += count;
  }
  return begin;
}

// A token and its log-probability as the model gives it: of the softmax over the tokens that the tokenizer
// knows, before bias, penalty, temperature and filters.
struct TokenScore {
  int32_t id;
  float logprob;
};

// Who looks on while the tokens of a text are drawn, or has a say. No part of the text: no copy and no
// snapshot has them. What they throw goes through next(), which has then changed nothing.
struct DrawHooks {
  // Called before each draw with the token drawn before (-1: none) and a mask of ones, to clear the bits of
  // tokens that must not follow: bit i % 32 of word i / 32 is token i's.
  std::function<void(int32_t last, std::span<uint32_t> allowed)> filter = {};
  // Called for each token that is drawn, before it is read, with the `best` most likely tokens (less if there
  // are not as many), most likely first. Not for a stop token.
  std::function<void(TokenScore token, std::span<const TokenScore> best)> drawn = {};
  size_t best = 0;
};

// One text being written. A value: a copy goes on as the original would, over a model in the same state; so
// it may stop between any two steps, for as long as one likes. At every return the model has read exactly the
// prompt tokens and generated tokens that stats() counts; an error of the model ends the generation.
class Generator {
 public:
  // `vocab_size`: of the model's logits; tokens that the tokenizer does not know are never sampled.
  // Throws Error (kInvalidArgument): an empty prompt, ids out of range, options out of range.
  Generator(size_t vocab_size, std::shared_ptr<const Tokenizer> tokenizer, std::span<const int32_t> prompt,
            const GenerateOptions& options);

  // All that it needs to go on: options, the rest of the prompt, the last logits, sampler, text held back.
  // Not the seconds, nor what was drafted; what goes on from it speculates. To be called before it is over.
  // The constructor throws kBadSnapshot.
  void save(ByteWriter& to) const;
  Generator(ByteReader& from, size_t vocab_size, std::shared_ptr<const Tokenizer> tokenizer);

  // Reads what is left of the prompt. False when `go_on` ended that; stats() are up to date when it is asked.
  bool prefill(const Forward& forward, GoOn go_on = kToTheEnd);

  // The text that became certain with one more token: empty while a character or a possible stop string is
  // incomplete, nothing when the generation is over. Reads what is left of the prompt first. With
  // `speculation` it may be several tokens, as many of a draft as are drawn; never with hooks, which are
  // called token by token.
  std::optional<std::string> next(const Forward& forward, const DrawHooks& hooks = {},
                                  Speculation* speculation = nullptr);

  // The same in steps, for who reads for several texts at once. What the model is to read now: from what is
  // left of the prompt, or one token that is drawn. Nothing when the generation is over, which end() ends.
  std::span<const int32_t> wanted(const DrawHooks& hooks);
  std::span<float> room() { return logits_; }  // for the logits after the last of these
  // The first `count` of these were read, in so many seconds. What next() gives; after a part of the prompt
  // "".
  std::string took(size_t count, double seconds);
  std::optional<std::string> end();

  bool over() const { return stats_.finish != FinishReason::kNone; }
  const GenerateStats& stats() const { return stats_; }
  const std::shared_ptr<const Tokenizer>& tokenizer() const { return decoder_.tokenizer(); }
  Sampler& sampler() { return sampler_; }
  const Sampler& sampler() const { return sampler_; }

 private:
  std::optional<int32_t> draw(const DrawHooks& hooks);
  bool stops(int32_t id) const;
  void took_prompt(size_t count);
  std::string took_drawn(int32_t id);
  size_t draft(Speculation& speculation, std::span<int32_t> room) const;
  std::string speculate(Speculation& speculation, std::span<const int32_t> ids);
  bool draws(std::span<const float> logits, int32_t id);

  WipedVector<int32_t> prompt_;  // what is to be read
  size_t prompt_read_ = 0;       // how many of them were
  Sampler sampler_;
  int64_t max_tokens_;
  WipedVector<int32_t> stop_ids_;  // known_ids()
  StreamDecoder decoder_;
  StopFilter filter_;
  WipedVector<float> logits_;  // [vocab_size], of the last token read
  size_t samplable_;           // how many of them the tokenizer knows
  int32_t last_ = -1;          // drawn last, for a filter
  int32_t drawn_ = -1;         // within a step: what is to be read
  // What is drawn from logits_ next, where a draft that was wrong there has shown it, and the random numbers
  // after it. Not for a draw with a filter.
  struct Ahead {
    int32_t id;
    Random random;
  };
  std::optional<Ahead> ahead_ = {};
  bool speculates_ = true;
  GenerateStats stats_;
};

}  // namespace allmem
