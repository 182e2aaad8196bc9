// The generate loop: prefill in blocks, then sample, read and decode one token at a time.
#include "runtime/generate.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "platform/error.h"

namespace allmem {
namespace {

// Adds the time since its construction, or since the last lap, to `seconds`.
class Timer {
 public:
  explicit Timer(double& seconds) : seconds_(seconds) {}
  ~Timer() { lap(); }
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  void lap() {
    const auto before = std::exchange(start_, std::chrono::steady_clock::now());
    seconds_ += std::chrono::duration<double>(start_ - before).count();
  }

 private:
  double& seconds_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

int64_t checked_count(int64_t max_tokens) {
  if (max_tokens < 0) {
    throw Error(ErrorCode::kInvalidArgument,
                "max_tokens is " + std::to_string(max_tokens) + "; it must be at least 0.");
  }
  return max_tokens;
}

constexpr size_t kMany = std::numeric_limits<size_t>::max();  // of what the snapshot's size alone limits
constexpr size_t kMaxPending = 3;                             // bytes of an incomplete character

WipedVector<int32_t> read_prompt(ByteReader& from, size_t vocab_size) {
  WipedVector<int32_t> ids = from.list<int32_t>(kMany);
  for (const int32_t id : ids) {
    if (id < 0 || static_cast<size_t>(id) >= vocab_size) refuse_snapshot("a token is outside the vocabulary");
  }
  return ids;
}

int64_t read_count(ByteReader& from) {
  const auto count = from.number<int64_t>();
  if (count < 0) refuse_snapshot("it has a negative number of tokens");
  return count;
}

StopFilter read_filter(ByteReader& from) {
  std::vector<std::string> stop;
  const auto count = from.number<uint64_t>();
  if (count > kMaxStops) refuse_snapshot("it has more than " + std::to_string(kMaxStops) + " stop texts");
  for (uint64_t i = 0; i < count; ++i) {
    stop.emplace_back(from.text(kMaxStopBytes));
    if (stop.back().empty()) refuse_snapshot("a stop text is empty");
  }
  StopFilter filter(stop);
  const WipedString pending = from.text(kMaxStopBytes);
  if (!filter.push(pending).empty() || filter.stopped())
    refuse_snapshot("the text held back is not the beginning of a stop text");
  return filter;
}

// The tokens that end a text: those asked for, and stop texts that are special tokens.
std::vector<int32_t> stop_tokens(const GenerateOptions& options, const Tokenizer& tokenizer) {
  std::vector<int32_t> ids = options.stop_ids;
  for (const std::string& text : options.stop) {
    const auto id = tokenizer.token_id(text);
    if (id && tokenizer.is_special(*id)) ids.push_back(*id);
  }
  return ids;
}

// Nothing when no token is possible.
std::optional<int32_t> draw(Sampler& sampler, std::span<const float> logits, int32_t last,
                            const DrawHooks& hooks) {
  if (!hooks.filter) return sampler.sample(logits);
  std::vector<uint32_t> allowed((logits.size() + 31) / 32, ~uint32_t{0});
  hooks.filter(last, allowed);
  return sampler.sample(logits, allowed);
}

void tell_drawn(std::span<const float> logits, int32_t id, const DrawHooks& hooks) {
  if (!hooks.drawn) return;
  const float largest = *std::ranges::max_element(logits);
  double total = 0.0;
  for (const float logit : logits) total += std::exp(static_cast<double>(logit - largest));
  const double log_total = std::log(total);
  const auto score = [&](int32_t of) {
    const double below = static_cast<double>(logits[static_cast<size_t>(of)] - largest);
    return TokenScore{of, static_cast<float>(below - log_total)};
  };
  std::vector<int32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  const auto end = ids.begin() + static_cast<ptrdiff_t>(std::min(hooks.best, ids.size()));
  std::partial_sort(ids.begin(), end, ids.end(), [&](int32_t a, int32_t b) {
    const float of_a = logits[static_cast<size_t>(a)], of_b = logits[static_cast<size_t>(b)];
    return of_a > of_b || (of_a == of_b && a < b);
  });
  std::vector<TokenScore> best;
  for (auto next = ids.begin(); next != end; ++next) best.push_back(score(*next));
  hooks.drawn(score(id), best);
}

}  // namespace

StopText::StopText(std::string_view text) : text_(text), borders_(text.size()) {
  for (size_t i = 1; i < text_.size(); ++i)
    borders_[i] = static_cast<uint32_t>(with_next(borders_[i - 1], text_[i]));
}

// Of a text that ends with `begun` bytes of this one: with how many it ends after one more.
size_t StopText::with_next(size_t begun, char next) const {
  while (begun > 0 && text_[begun] != next) begun = borders_[begun - 1];
  return text_[begun] == next ? begun + 1 : begun;
}

std::optional<size_t> StopText::read(std::string_view more) {
  for (size_t i = 0; i < more.size(); ++i) {
    begun_ = with_next(begun_, more[i]);
    if (begun_ == text_.size()) return i + 1;
  }
  return std::nullopt;
}

StopFilter::StopFilter(std::span<const std::string> stop) {
  const auto refuse = [](const std::string& why) { throw Error(ErrorCode::kInvalidArgument, why); };
  if (stop.size() > kMaxStops) {
    refuse("There are " + std::to_string(stop.size()) + " stop strings; at most " +
           std::to_string(kMaxStops) + " are possible.");
  }
  for (const std::string& s : stop) {
    if (s.empty()) refuse("A stop string is empty; it would stop everything.");
    if (s.size() > kMaxStopBytes) {
      refuse("A stop string has " + std::to_string(s.size()) + " bytes; it may have " +
             std::to_string(kMaxStopBytes) + ".");
    }
    stop_.emplace_back(s);
  }
}

std::string StopFilter::push(std::string_view text) {
  if (stopped_) return {};
  const size_t before = pending_.size();
  pending_ += text;
  size_t shown = pending_.size(), held = 0;
  for (StopText& stop : stop_) {
    if (const auto end = stop.read(text)) {
      stopped_ = true;
      shown = std::min(shown, before + *end - stop.text().size());
    }
    held = std::max(held, stop.begun());
  }
  if (!stopped_) shown -= held;
  std::string certain(pending_, 0, shown);
  pending_.erase(0, stopped_ ? std::string::npos : shown);
  return certain;
}

std::string StopFilter::flush() {
  std::string rest(pending_);
  pending_.clear();
  return rest;
}

Generator::Generator(size_t vocab_size, std::shared_ptr<const Tokenizer> tokenizer,
                     std::span<const int32_t> prompt, const GenerateOptions& options)
    : sampler_(options.sampling, vocab_size),
      max_tokens_(checked_count(options.max_tokens)),
      decoder_(tokenizer),
      filter_(options.stop),
      logits_(vocab_size),
      samplable_(std::min(vocab_size, static_cast<size_t>(tokenizer->vocab_size()))),
      speculates_(options.speculate) {
  check_ids(prompt, vocab_size);
  prompt_.assign(prompt.begin(), prompt.end());
  stats_.prompt_left = prompt_.size();
  const std::vector<int32_t> stops = known_ids(stop_tokens(options, *tokenizer), vocab_size);
  stop_ids_.assign(stops.begin(), stops.end());
}

void Generator::save(ByteWriter& to) const {
  to.list(std::span<const int32_t>(prompt_).subspan(prompt_read_));
  sampler_.save(to);
  to.number(max_tokens_);
  to.list(std::span<const int32_t>(stop_ids_));
  to.number(uint64_t{filter_.stop().size()});
  for (const StopText& stop : filter_.stop()) to.text(stop.text());
  to.text(filter_.pending());
  to.text(decoder_.pending());
  const bool begun = prompt_read_ == prompt_.size();  // before that there are no logits
  to.list(std::span<const float>(logits_).first(begun ? logits_.size() : 0));
  to.number(uint64_t{stats_.prompt_tokens});
  to.number(uint64_t{stats_.generated_tokens});
}

// Members are read in the order of their declaration, which is the order of save().
Generator::Generator(ByteReader& from, size_t vocab_size, std::shared_ptr<const Tokenizer> tokenizer)
    : prompt_(read_prompt(from, vocab_size)),
      sampler_(from, vocab_size),
      max_tokens_(read_count(from)),
      stop_ids_(known_ids(from.list<int32_t>(kMany), vocab_size)),
      decoder_(tokenizer),
      filter_(read_filter(from)),
      samplable_(std::min(vocab_size, static_cast<size_t>(tokenizer->vocab_size()))) {
  decoder_.set_pending(from.text(kMaxPending));
  logits_ = from.list<float>(vocab_size);
  if (logits_.size() != (prompt_.empty() ? vocab_size : 0)) {
    refuse_snapshot("its unfinished text lacks the logits to go on from");
  }
  logits_.resize(vocab_size);
  stats_.prompt_left = prompt_.size();
  stats_.prompt_tokens = static_cast<size_t>(read_count(from));
  stats_.generated_tokens = static_cast<size_t>(read_count(from));
}

bool Generator::prefill(const Forward& forward, GoOn go_on) {
  if (prompt_read_ == prompt_.size()) return true;
  Timer timer(stats_.prefill_seconds);
  const auto left = std::span<const int32_t>(prompt_).subspan(prompt_read_);
  size_t counted = 0;
  const auto count = [&](size_t read) {
    took_prompt(read - counted);
    counted = read;
    timer.lap();
  };
  count(forward(left, LogitsFor::kLast, logits_, [&](size_t read) {
    count(read);
    return go_on(read);
  }));
  return counted == left.size();
}

bool Generator::stops(int32_t id) const { return std::ranges::binary_search(stop_ids_, id); }

// That the turns before have ended must not make it unlikely that this one does: stop tokens bear no penalty.
void Generator::took_prompt(size_t count) {
  for (const int32_t id : std::span<const int32_t>(prompt_).subspan(prompt_read_, count)) {
    if (!stops(id)) sampler_.accept(id);
  }
  prompt_read_ += count;
  stats_.prompt_tokens += count;
  stats_.prompt_left -= count;
}

std::optional<std::string> Generator::next(const Forward& forward, const DrawHooks& hooks,
                                           Speculation* speculation) {
  if (over()) return std::nullopt;
  prefill(forward);
  const Timer timer(stats_.decode_seconds);
  const std::span<const int32_t> id = wanted(hooks);
  if (id.empty()) return end();
  if (speculation != nullptr && speculates_ && !hooks.filter && !hooks.drawn) {
    std::array<int32_t, kMostSpeculative> ids{drawn_};
    if (const size_t count = draft(*speculation, std::span(ids).subspan(1)); count > 0)
      return speculate(*speculation, std::span(ids).first(1 + count));
  }
  forward(id, LogitsFor::kLast, logits_, kToTheEnd);
  return took(1, 0);
}

// Tokens that may follow drawn_, and go on with the text.
size_t Generator::draft(Speculation& speculation, std::span<int32_t> room) const {
  const auto left = static_cast<uint64_t>(max_tokens_) - stats_.generated_tokens - 1;
  room = room.first(static_cast<size_t>(std::min<uint64_t>(left, room.size())));
  if (room.empty()) return 0;
  const auto draft = room.first(speculation.draft(drawn_, room));
  const auto ends = [&](int32_t id) { return static_cast<size_t>(id) >= samplable_ || stops(id); };
  return static_cast<size_t>(std::ranges::find_if(draft, ends) - draft.begin());
}

// Reads what was drawn and a draft, of which as much counts as is drawn from what the model says of it.
std::string Generator::speculate(Speculation& speculation, std::span<const int32_t> ids) {
  std::string piece;
  speculation.read(ids, [&](std::span<const float> rows) {
    const auto row = [&](size_t i) { return rows.subspan(i * logits_.size(), logits_.size()); };
    size_t count = 0;
    do piece += took_drawn(ids[count++]);
    while (count < ids.size() && !over() && draws(row(count - 1), ids[count]));
    std::ranges::copy(row(count - 1), logits_.begin());
    stats_.drafted_tokens += ids.size() - 1;
    stats_.accepted_tokens += count - 1;
    return count;
  });
  return piece;
}

// Whether `id` is the next token. What else would be drawn is left to draw().
bool Generator::draws(std::span<const float> logits, int32_t id) {
  const Random before = sampler_.random();
  const std::optional<int32_t> drawn = sampler_.sample(logits.first(samplable_));
  if (drawn == id) {
    sampler_.accept(id);
    return true;
  }
  if (drawn) ahead_ = {*drawn, sampler_.random()};
  sampler_.set_random(before);
  return false;
}

std::span<const int32_t> Generator::wanted(const DrawHooks& hooks) {
  if (over()) return {};
  if (prompt_read_ < prompt_.size()) return std::span<const int32_t>(prompt_).subspan(prompt_read_);
  const std::optional<int32_t> id = draw(hooks);
  if (!id) return {};
  drawn_ = *id;
  return {&drawn_, 1};
}

// The token that goes on; nothing, and the reason is set, when the generation is over.
std::optional<int32_t> Generator::draw(const DrawHooks& hooks) {
  const auto finish = [&](FinishReason reason) {
    stats_.finish = reason;
    return std::nullopt;
  };
  if (static_cast<int64_t>(stats_.generated_tokens) >= max_tokens_) return finish(FinishReason::kMaxTokens);
  const auto logits = std::span<const float>(logits_).first(samplable_);
  const std::optional<Ahead> ahead = std::exchange(ahead_, {});
  std::optional<int32_t> drawn;
  if (ahead && !hooks.filter) {
    drawn = ahead->id;
    sampler_.set_random(ahead->random);
  } else {
    drawn = allmem::draw(sampler_, logits, last_, hooks);
  }
  if (!drawn) return finish(FinishReason::kNoToken);
  const int32_t id = *drawn;
  if (stops(id)) return finish(FinishReason::kStopToken);
  tell_drawn(logits, id, hooks);
  sampler_.accept(id);
  return id;
}

std::string Generator::took(size_t count, double seconds) {
  if (prompt_read_ < prompt_.size()) {
    took_prompt(count);
    stats_.prefill_seconds += seconds;
    return {};
  }
  stats_.decode_seconds += seconds;
  return took_drawn(drawn_);
}

std::string Generator::took_drawn(int32_t id) {
  last_ = id;
  ++stats_.generated_tokens;
  std::string piece = filter_.push(decoder_.push(id));
  if (filter_.stopped()) stats_.finish = FinishReason::kStopString;
  return piece;
}

// What was held back is the last piece.
std::optional<std::string> Generator::end() {
  std::string rest = filter_.push(decoder_.flush());
  rest += filter_.flush();  // not in one expression: the order of its operands would be the compiler's choice
  if (rest.empty()) return std::nullopt;
  return rest;
}

}  // namespace allmem
