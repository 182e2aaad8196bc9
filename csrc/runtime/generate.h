// The generate loop: reads a prompt, samples tokens, hands out their text piece by piece.
#pragma once

#include <atomic>
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

// How many tokens of a prompt are read between two looks at the cancel flag.
inline constexpr size_t kPrefillBlock = 128;

struct GenerateOptions {
  SamplerOptions sampling = {};
  int64_t max_tokens = 256;  // >= 0
  // UTF-8, none empty; the text ends before the first of them, wherever tokens break.
  std::vector<std::string> stop = {};
  std::vector<int32_t> stop_ids = {};  // tokens that end the text and are neither shown nor read
};

enum class FinishReason { kNone, kStopToken, kStopString, kMaxTokens, kCancelled };

struct GenerateStats {
  size_t prompt_tokens = 0;     // read so far
  size_t generated_tokens = 0;  // sampled, without a stop token
  double prefill_seconds = 0.0;
  double decode_seconds = 0.0;
  FinishReason finish = FinishReason::kNone;
};

// Lets text through up to the first stop string, holding back what could still become one.
class StopFilter {
 public:
  explicit StopFilter(std::vector<std::string> stop);  // throws Error (kInvalidArgument) if one is empty
  std::string push(std::string_view text);             // the text that is now certain to be shown
  std::string flush();  // what was held back, when the text ends without a stop
  bool stopped() const { return stopped_; }

 private:
  std::vector<std::string> stop_;
  std::string pending_;
  bool stopped_ = false;
};

// Runs the model on `ids`; has the contract of Session::forward.
using Forward = std::function<void(std::span<const int32_t> ids, LogitsFor which, std::span<float> logits)>;

// One caller at a time, except for cancel(). At every return the model has read exactly the prompt tokens and
// generated tokens that stats() counts, so a conversation can go on from there; an error ends the generation.
class Generator {
 public:
  // `vocab_size`: of the model's logits; tokens that the tokenizer does not know are never sampled.
  // Throws Error (kInvalidArgument): an empty prompt, ids out of range, options out of range.
  Generator(Forward forward, size_t vocab_size, std::shared_ptr<const Tokenizer> tokenizer,
            std::vector<int32_t> prompt, const GenerateOptions& options);

  // Reads the next block of the prompt. True while more of it is left; false when it is read, or cancelled.
  bool prefill();

  // The text that became certain with one more token: empty while a character or a possible stop string is
  // incomplete, nothing when the generation is over. Reads what is left of the prompt first.
  std::optional<std::string> next();

  // From any thread: ends the generation before the next token or block.
  void cancel() { cancelled_ = true; }

  const GenerateStats& stats() const { return stats_; }

 private:
  std::optional<std::string> finish(FinishReason reason);

  Forward forward_;
  std::vector<int32_t> prompt_;
  GenerateOptions options_;
  Sampler sampler_;
  StreamDecoder decoder_;
  StopFilter filter_;
  std::vector<float> logits_;  // [vocab_size], of the last token read
  size_t samplable_;           // how many of them the tokenizer knows
  GenerateStats stats_;
  std::atomic<bool> cancelled_ = false;
};

}  // namespace allmem
