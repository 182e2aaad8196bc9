// What a session holds beside its state, and how it is copied, saved and overwritten together with it.
#include "runtime/writer.h"

#include <algorithm>
#include <utility>

#include "platform/error.h"

namespace allmem {

namespace {

// A generation in memory that is given back overwritten, short strings within it included.
template <class... Arguments>
std::shared_ptr<Generator> make_text(Arguments&&... arguments) {
  return std::allocate_shared<Generator>(WipingAllocator<Generator>(), std::forward<Arguments>(arguments)...);
}

}  // namespace

Writer::Writer(std::unique_ptr<Session> session)
    : session_(std::move(session)), now_{.sampler = Sampler({}, vocab_size()), .logits = {}, .text = {}} {
  now_.logits.reserve(vocab_size());  // so that a step allocates nothing
}

size_t Writer::vocab_size() const { return static_cast<size_t>(session_->model().info().vocab_size); }

void Writer::drop_text() {
  now_.text.reset();
  ++text_number_;
}

size_t Writer::read(std::span<const int32_t> ids, LogitsFor which, std::span<float> logits, GoOn go_on) {
  const size_t vocab = vocab_size();
  check_ids(ids, vocab);  // a refused call drops nothing
  drop_text();
  WipedVector<float> last = std::move(now_.logits);  // comes back when it holds what it should
  now_.logits.clear();
  if (which != LogitsFor::kNone) last.resize(vocab);
  const bool own = which == LogitsFor::kLast && logits.empty();
  size_t accepted = 0;
  const auto accept = [&](size_t read) {
    for (; accepted < read; ++accepted) now_.sampler.accept(ids[accepted]);
  };
  const size_t read =
      session_->forward(ids, which, own ? std::span<float>(last) : logits, [&](size_t so_far) {
        accept(so_far);
        return go_on(so_far) && !cancelled_;
      });
  accept(read);
  if (which == LogitsFor::kNone || (which == LogitsFor::kLast && read < ids.size())) {
    last.clear();
  } else if (!own) {
    const size_t row = which == LogitsFor::kAll ? read - 1 : 0;
    std::ranges::copy(logits.subspan(row * vocab, vocab), last.begin());
  }
  now_.logits = std::move(last);
  return read;
}

void Writer::set_sampling(const SamplerOptions& options) { now_.sampler = Sampler(options, vocab_size()); }

int32_t Writer::sample(const Tokenizer* tokenizer) {
  if (now_.logits.empty()) {
    throw Error(ErrorCode::kInvalidArgument,
                "There are no logits to sample from; let the session read a token first.");
  }
  size_t samplable = now_.logits.size();
  if (tokenizer != nullptr) samplable = std::min(samplable, static_cast<size_t>(tokenizer->vocab_size()));
  const auto id = now_.sampler.sample(std::span<const float>(now_.logits).first(samplable));
  if (!id) throw Error(ErrorCode::kInvalidArgument, "The logit bias leaves no token that could be drawn.");
  return *id;
}

void Writer::start(std::shared_ptr<const Tokenizer> tokenizer, std::span<const int32_t> prompt,
                   const GenerateOptions& options) {
  auto text = make_text(vocab_size(), std::move(tokenizer), prompt, options);
  drop_text();
  now_.text = std::move(text);
  now_.logits.clear();
}

Generator& Writer::text() {
  if (!now_.text) throw Error(ErrorCode::kInvalidArgument, "There is no text to go on with.");
  return *now_.text;
}

Forward Writer::forward() {
  return [this](std::span<const int32_t> ids, LogitsFor which, std::span<float> logits, GoOn go_on) {
    return session_->forward(ids, which, logits, go_on);
  };
}

bool Writer::prefill(GoOn go_on) {
  return text().prefill(forward(), [&](size_t read) { return go_on(read) && !cancelled_; });
}

std::optional<std::string> Writer::next(const DrawHooks& hooks) { return text().next(forward(), hooks); }

void Writer::mark(size_t max_bytes) {
  const std::span<const std::byte> state = session_->state_memory();
  ByteWriter draft;
  save(draft);
  const size_t wanted = state.size() + draft.bytes().size(), room = max_bytes - std::min(max_bytes, wanted);
  while (mark_bytes() > room) marks_.pop_front();  // before the new one is made: less memory at once
  marks_.push_back({.state = WipedVector<std::byte>(state.begin(), state.end()),
                    .draft = draft.bytes(),
                    .position = session_->position(),
                    .tokenizer = unfinished() ? now_.text->tokenizer() : nullptr});
}

bool Writer::undo() {
  if (marks_.empty()) return false;
  const Mark& mark = marks_.back();
  ByteReader reader(mark.draft);
  Draft draft = read_draft(reader, mark.tokenizer);
  session_->restore(mark.state, mark.position);
  now_ = std::move(draft);
  ++text_number_;
  marks_.pop_back();
  return true;
}

size_t Writer::mark_bytes() const {
  size_t bytes = 0;
  for (const Mark& mark : marks_) bytes += mark.state.size() + mark.draft.size();
  return bytes;
}

void Writer::reset() {
  session_->reset();
  now_.sampler.wipe();
  now_.logits.clear();
  drop_text();
  marks_.clear();
}

void Writer::wipe() {
  session_->wipe();
  wipe_memory({reinterpret_cast<std::byte*>(now_.logits.data()), now_.logits.capacity() * sizeof(float)});
  reset();  // what it gives back is overwritten
}

std::unique_ptr<Writer> Writer::clone() const {
  auto twin = std::make_unique<Writer>(session_->clone());
  twin->now_.sampler = now_.sampler;
  twin->now_.logits = now_.logits;
  if (now_.text) twin->now_.text = make_text(*now_.text);
  twin->files = files;
  return twin;
}

void Writer::save(ByteWriter& to) const {
  now_.sampler.save(to);
  to.list(std::span<const float>(now_.logits));
  to.number(uint8_t{unfinished()});
  if (unfinished()) now_.text->save(to);
  if (now_.sampler.has_bias() || (unfinished() && now_.text->sampler().has_bias())) {
    now_.sampler.save_bias(to);
    if (unfinished()) now_.text->sampler().save_bias(to);
  }
}

Writer::Draft Writer::read_draft(ByteReader& from, const std::shared_ptr<const Tokenizer>& tokenizer) const {
  const size_t vocab = vocab_size();
  Draft draft{.sampler = Sampler(from, vocab), .logits = from.list<float>(vocab), .text = {}};
  if (!draft.logits.empty() && draft.logits.size() != vocab)
    refuse_snapshot("some of its logits are missing");
  draft.logits.reserve(vocab);
  const auto has_text = from.number<uint8_t>();
  if (has_text > 1) refuse_snapshot("its flag for an unfinished text is neither 0 nor 1");
  if (has_text == 1) {
    if (!tokenizer) {
      throw Error(ErrorCode::kUnsupported,
                  "This memory holds an unfinished text; to go on, the model needs its tokenizer.json.");
    }
    draft.text = make_text(from, vocab, tokenizer);
  }
  if (!from.at_end()) {
    draft.sampler.load_bias(from);
    if (draft.text) draft.text->sampler().load_bias(from);
  }
  if (!from.at_end()) refuse_snapshot("something follows its last part");
  return draft;
}

void Writer::restore(uint64_t position, Draft draft, FunctionRef<void(std::span<std::byte>)> fill) {
  session_->restore(position, fill);
  now_ = std::move(draft);
  ++text_number_;
  marks_.clear();
}

}  // namespace allmem
