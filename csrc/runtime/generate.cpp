// The generate loop: prefill in blocks, then sample, read and decode one token at a time.
#include "runtime/generate.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "platform/error.h"

namespace allmem {
namespace {

// Adds the time from its construction to its destruction to `seconds`.
class Timer {
 public:
  explicit Timer(double& seconds) : seconds_(seconds), start_(std::chrono::steady_clock::now()) {}
  ~Timer() { seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

 private:
  double& seconds_;
  std::chrono::steady_clock::time_point start_;
};

// How many bytes at the end of `text` could be the beginning of `stop`.
size_t overlap(std::string_view text, std::string_view stop) {
  for (size_t n = std::min(text.size(), stop.size() - 1); n > 0; --n) {
    if (text.ends_with(stop.substr(0, n))) return n;
  }
  return 0;
}

std::vector<int32_t> checked_prompt(std::vector<int32_t> prompt, size_t vocab_size) {
  if (prompt.empty()) {
    throw Error(ErrorCode::kInvalidArgument,
                "The prompt is empty; give the model at least one token to read.");
  }
  for (size_t i = 0; i < prompt.size(); ++i) {
    if (prompt[i] < 0 || static_cast<size_t>(prompt[i]) >= vocab_size) {
      throw Error(ErrorCode::kInvalidArgument, "Token " + std::to_string(prompt[i]) + " at index " +
                                                   std::to_string(i) +
                                                   " of the prompt is outside the model's vocabulary of " +
                                                   std::to_string(vocab_size) + " tokens.");
    }
  }
  return prompt;
}

const GenerateOptions& checked_options(const GenerateOptions& options) {
  if (options.max_tokens < 0) {
    throw Error(ErrorCode::kInvalidArgument,
                "max_tokens is " + std::to_string(options.max_tokens) + "; it must be at least 0.");
  }
  return options;
}

}  // namespace

StopFilter::StopFilter(std::vector<std::string> stop) : stop_(std::move(stop)) {
  for (const std::string& s : stop_) {
    if (s.empty())
      throw Error(ErrorCode::kInvalidArgument, "A stop string is empty; it would stop everything.");
  }
}

std::string StopFilter::push(std::string_view text) {
  if (stopped_) return {};
  pending_ += text;
  size_t found = std::string::npos;
  for (const std::string& s : stop_) found = std::min(found, pending_.find(s));
  if (found != std::string::npos) {
    stopped_ = true;
    return std::exchange(pending_, {}).substr(0, found);
  }
  size_t held = 0;
  for (const std::string& s : stop_) held = std::max(held, overlap(pending_, s));
  std::string certain = pending_.substr(0, pending_.size() - held);
  pending_.erase(0, certain.size());
  return certain;
}

std::string StopFilter::flush() { return std::exchange(pending_, {}); }

Generator::Generator(Forward forward, size_t vocab_size, std::shared_ptr<const Tokenizer> tokenizer,
                     std::vector<int32_t> prompt, const GenerateOptions& options)
    : forward_(std::move(forward)),
      prompt_(checked_prompt(std::move(prompt), vocab_size)),
      options_(checked_options(options)),
      sampler_(options.sampling, vocab_size),
      decoder_(tokenizer),
      filter_(options.stop),
      logits_(vocab_size),
      samplable_(std::min(vocab_size, static_cast<size_t>(tokenizer->vocab_size()))) {}

bool Generator::prefill() {
  if (cancelled_ || stats_.prompt_tokens == prompt_.size()) return false;
  const Timer timer(stats_.prefill_seconds);
  const size_t left = prompt_.size() - stats_.prompt_tokens;
  const std::span<const int32_t> block(prompt_.data() + stats_.prompt_tokens, std::min(left, kPrefillBlock));
  const bool last = block.size() == left;
  forward_(block, last ? LogitsFor::kLast : LogitsFor::kNone,
           last ? std::span<float>(logits_) : std::span<float>());
  for (int32_t id : block) sampler_.accept(id);
  stats_.prompt_tokens += block.size();
  return !last;
}

std::optional<std::string> Generator::next() {
  if (stats_.finish != FinishReason::kNone) return std::nullopt;
  while (prefill()) {
  }
  const Timer timer(stats_.decode_seconds);
  if (cancelled_) return finish(FinishReason::kCancelled);
  if (static_cast<int64_t>(stats_.generated_tokens) >= options_.max_tokens) {
    return finish(FinishReason::kMaxTokens);
  }
  const int32_t id = sampler_.sample(std::span<const float>(logits_).first(samplable_));
  if (std::ranges::find(options_.stop_ids, id) != options_.stop_ids.end()) {
    return finish(FinishReason::kStopToken);
  }
  sampler_.accept(id);
  forward_({&id, 1}, LogitsFor::kLast, logits_);
  ++stats_.generated_tokens;
  std::string piece = filter_.push(decoder_.push(id));
  if (filter_.stopped()) stats_.finish = FinishReason::kStopString;
  return piece;
}

// Ends the generation; what was held back is the last piece.
std::optional<std::string> Generator::finish(FinishReason reason) {
  if (stats_.finish != FinishReason::kNone) return std::nullopt;
  stats_.finish = reason;
  std::string rest = filter_.push(decoder_.flush());
  rest += filter_.flush();  // not in one expression: the order of its operands would be the compiler's choice
  if (rest.empty()) return std::nullopt;
  return rest;
}

}  // namespace allmem
