// What a session holds beside its state, and how it is copied, saved and overwritten together with it.
#include "runtime/writer.h"

#include <algorithm>
#include <chrono>
#include <utility>
#include <vector>

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
  if (session_->model().info().weight_bytes >= NgramDrafts::kCachedBytes)
    drafts_ = std::make_unique<NgramDrafts>();
}

size_t Writer::vocab_size() const { return static_cast<size_t>(session_->model().info().vocab_size); }

void Writer::drop_text() {
  now_.text.reset();
  ++text_number_;
}

void Writer::note_read(std::span<const int32_t> ids) {
  if (drafts_) drafts_->read(ids);
}

// A read() under way. The last logits are away until it has ended well.
class Writer::HandRead {
 public:
  // Throws kInvalidArgument; such a call drops nothing.
  HandRead(Writer& writer, std::span<const int32_t> ids, LogitsFor which, std::span<float> logits, GoOn go_on)
      : writer_(&writer), ids_(ids), which_(which), logits_(logits), go_on_(go_on) {
    check_ids(ids, writer.vocab_size());
    writer.drop_text();
    last_ = std::move(writer.now_.logits);
    writer.now_.logits.clear();
    if (which != LogitsFor::kNone) last_.resize(writer.vocab_size());
    own_ = which == LogitsFor::kLast && logits.empty();
  }

  std::span<float> room() { return own_ ? std::span<float>(last_) : logits_; }

  // Between two blocks: whether to go on.
  bool operator()(size_t read) {
    accept(read);
    return go_on_(read) && !writer_->cancelled_;
  }

  void end(size_t read) {
    accept(read);
    if (which_ == LogitsFor::kNone || (which_ == LogitsFor::kLast && read < ids_.size())) {
      last_.clear();
    } else if (!own_) {
      const size_t vocab = last_.size(), row = which_ == LogitsFor::kAll ? read - 1 : 0;
      std::ranges::copy(logits_.subspan(row * vocab, vocab), last_.begin());
    }
    writer_->now_.logits = std::move(last_);
  }

 private:
  void accept(size_t read) {
    for (; accepted_ < read; ++accepted_) writer_->now_.sampler.accept(ids_[accepted_]);
  }

  Writer* writer_;
  std::span<const int32_t> ids_;
  LogitsFor which_;
  std::span<float> logits_;
  GoOn go_on_;
  bool own_ = false;  // the logits go to the writer alone
  WipedVector<float> last_;
  size_t accepted_ = 0;
};

size_t Writer::read(std::span<const int32_t> ids, LogitsFor which, std::span<float> logits, GoOn go_on) {
  HandRead reading(*this, ids, which, logits, go_on);
  const size_t read = session_->forward(ids, which, reading.room(), reading);
  reading.end(read);
  note_read(ids.first(read));
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
    const size_t read = session_->forward(ids, which, logits, go_on);
    note_read(ids.first(read));
    return read;
  };
}

// How its session reads what `drafts_` has guessed.
class Writer::Drafted : public Speculation {
 public:
  explicit Drafted(Writer& writer) : writer_(writer) {}

  size_t draft(int32_t next, std::span<int32_t> room) override {
    const size_t count = writer_.drafts_->draft(next, room);
    return count == 0 ? 0 : std::min(count, writer_.session_->most_speculative() - 1);
  }

  void read(std::span<const int32_t> ids, Accept accept) override {
    WipedVector<float>& rows = writer_.rows_;
    rows.resize(kMostSpeculative * writer_.vocab_size());
    const size_t read = writer_.session_->speculate(ids, rows, [&] { return accept(rows); });
    writer_.note_read(ids.first(read));
  }

 private:
  Writer& writer_;
};

bool Writer::prefill(GoOn go_on) {
  return text().prefill(forward(), [&](size_t read) { return go_on(read) && !cancelled_; });
}

std::optional<std::string> Writer::next(const DrawHooks& hooks) {
  Drafted drafted(*this);
  return text().next(forward(), hooks, drafts_ ? &drafted : nullptr);
}

void Writer::read(Batch& batch, std::span<HandItem> items, GoOn go_on) {
  std::vector<HandRead> readings;
  std::vector<Batch::Item> calls;
  std::vector<HandItem*> of_call;
  readings.reserve(items.size());  // which calls refer to
  for (HandItem& item : items) {
    try {
      readings.emplace_back(*item.writer, item.ids, LogitsFor::kLast, std::span<float>(), go_on);
    } catch (const Error& error) {
      item.error = error;
      continue;
    }
    of_call.push_back(&item);
    calls.push_back({.session = item.writer->session_.get(),
                     .ids = item.ids,
                     .which = LogitsFor::kLast,
                     .logits = readings.back().room(),
                     .go_on = readings.back()});
  }
  batch.forward(calls);
  for (size_t i = 0; i < calls.size(); ++i) {
    of_call[i]->read = calls[i].read;
    of_call[i]->error = calls[i].error;
    if (calls[i].error) continue;
    readings[i].end(calls[i].read);
    of_call[i]->writer->note_read(calls[i].ids.first(calls[i].read));
  }
}

void Writer::next(Batch& batch, std::span<TextItem> items) {
  const auto start = std::chrono::steady_clock::now();
  const DrawHooks none;
  std::vector<Batch::Item> calls;
  std::vector<TextItem*> of_call;
  for (TextItem& item : items) {
    try {
      Generator& text = item.writer->text();
      if (text.over()) continue;
      const std::span<const int32_t> wanted = text.wanted(item.hooks == nullptr ? none : *item.hooks);
      const auto ids = wanted.first(std::min(wanted.size(), kMaxBlock));
      if (ids.empty()) {
        item.piece = text.end();
        continue;
      }
      const LogitsFor which = ids.size() == wanted.size() ? LogitsFor::kLast : LogitsFor::kNone;
      calls.push_back(
          {.session = item.writer->session_.get(), .ids = ids, .which = which, .logits = text.room()});
      of_call.push_back(&item);
    } catch (...) {
      item.error = std::current_exception();
    }
  }
  batch.forward(calls);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  for (size_t i = 0; i < calls.size(); ++i) {
    TextItem& item = *of_call[i];
    if (calls[i].error) {
      item.error = std::make_exception_ptr(*calls[i].error);
    } else {
      item.piece = item.writer->text().took(calls[i].read, seconds.count());
      item.writer->note_read(calls[i].ids);
    }
  }
}

void Writer::mark(size_t max_bytes) {
  const std::span<const std::byte> state = session_->state_memory();
  ByteWriter decoding;
  save(decoding);
  const size_t wanted = state.size() + decoding.bytes().size(),
               room = max_bytes - std::min(max_bytes, wanted);
  while (mark_bytes() > room) marks_.pop_front();  // before the new one is made: less memory at once
  marks_.push_back({.state = WipedVector<std::byte>(state.begin(), state.end()),
                    .decoding = decoding.bytes(),
                    .position = session_->position(),
                    .tokenizer = unfinished() ? now_.text->tokenizer() : nullptr});
}

bool Writer::undo() {
  if (marks_.empty()) return false;
  const Mark& mark = marks_.back();
  ByteReader reader(mark.decoding);
  Decoding decoding = read_decoding(reader, mark.tokenizer);
  session_->restore(mark.state, mark.position);
  now_ = std::move(decoding);
  ++text_number_;
  marks_.pop_back();
  return true;
}

size_t Writer::mark_bytes() const {
  size_t bytes = 0;
  for (const Mark& mark : marks_) bytes += mark.state.size() + mark.decoding.size();
  return bytes;
}

void Writer::reset() {
  session_->reset();
  now_.sampler.wipe();
  now_.logits.clear();
  drop_text();
  marks_.clear();
  rows_ = {};
  if (drafts_) drafts_->forget();
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
  if (drafts_) twin->drafts_ = drafts_->clone();
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

Writer::Decoding Writer::read_decoding(ByteReader& from,
                                       const std::shared_ptr<const Tokenizer>& tokenizer) const {
  const size_t vocab = vocab_size();
  Decoding decoding{.sampler = Sampler(from, vocab), .logits = from.list<float>(vocab), .text = {}};
  if (!decoding.logits.empty() && decoding.logits.size() != vocab)
    refuse_snapshot("some of its logits are missing");
  decoding.logits.reserve(vocab);
  const auto has_text = from.number<uint8_t>();
  if (has_text > 1) refuse_snapshot("its flag for an unfinished text is neither 0 nor 1");
  if (has_text == 1) {
    if (!tokenizer) {
      throw Error(ErrorCode::kUnsupported,
                  "This memory holds an unfinished text; to go on, the model needs its tokenizer.json.");
    }
    decoding.text = make_text(from, vocab, tokenizer);
  }
  if (!from.at_end()) {
    decoding.sampler.load_bias(from);
    if (decoding.text) decoding.text->sampler().load_bias(from);
  }
  if (!from.at_end()) refuse_snapshot("something follows its last part");
  return decoding;
}

void Writer::restore(uint64_t position, Decoding decoding, FunctionRef<void(std::span<std::byte>)> fill) {
  session_->restore(position, fill);
  now_ = std::move(decoding);
  ++text_number_;
  marks_.clear();
  if (drafts_) drafts_->forget();
}

}  // namespace allmem
