// A session, and what writing with it needs: the last logits, a sampler, the text being written, and states
// to go back to. The sessions of the C API and of Python are this, so that both read, write, save, undo and
// wipe alike.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "runtime/batch.h"
#include "runtime/draft.h"
#include "runtime/generate.h"
#include "runtime/sampler.h"
#include "runtime/session.h"

namespace allmem {

// One caller at a time. Reading anything by hand drops the text being written.
class Writer {
 public:
  explicit Writer(std::unique_ptr<Session> session);

  // For its options and figures. It is read, reset, wiped and restored through the writer.
  Session& session() { return *session_; }
  const Session& session() const { return *session_; }

  // --- by hand

  // As Session::forward(), except that `logits` may be empty with kLast, and that cancel() ends it, too.
  // Keeps the last row for logits(). After an error there are none.
  size_t read(std::span<const int32_t> ids, LogitsFor which, std::span<float> logits, GoOn go_on = kToTheEnd);
  // After the last token read, [vocab_size]. Empty when the last read asked for none, and after a text.
  std::span<const float> logits() const { return now_.logits; }
  // Starts a new sequence of draws, with no recent tokens. Throws kInvalidArgument.
  void set_sampling(const SamplerOptions& options);
  // Draws a token from logits(), one that `tokenizer` knows if there is one. It is not read. Throws
  // kInvalidArgument when there are no logits, or no token is possible.
  int32_t sample(const Tokenizer* tokenizer);

  // --- a text

  // Begins one, in place of the one before. Throws kInvalidArgument; all is then as before.
  void start(std::shared_ptr<const Tokenizer> tokenizer, std::span<const int32_t> prompt,
             const GenerateOptions& options);
  bool unfinished() const { return now_.text && !now_.text->over(); }
  // Of the text begun last, over or not; null when there is none.
  const GenerateStats* stats() const { return now_.text ? &now_.text->stats() : nullptr; }
  void drop_text();  // there is none to go on with
  // Changes whenever the text is another: by start(), drop_text(), read(), undo(), restore().
  uint64_t text_number() const { return text_number_; }
  // As Generator's; cancel() ends prefill(), too. Throw kInvalidArgument when there is no text.
  bool prefill(GoOn go_on = kToTheEnd);
  std::optional<std::string> next(const DrawHooks& hooks = {});
  // Where next() has its drafts from; null: it reads token by token. At first NgramDrafts, where weights are
  // larger than a cache.
  void speculate_with(std::unique_ptr<DraftSource> drafts) { drafts_ = std::move(drafts); }

  // --- several at once, whose sessions read as a batch; each writer once

  struct HandItem {
    Writer* writer;
    std::span<const int32_t> ids;
    size_t read = 0;                  // as read(ids, kLast, {}) returns,
    std::optional<Error> error = {};  // or throws; the others do not mind
  };
  // Throws what Batch::forward() does; the position of a session then says what it has read.
  static void read(Batch& batch, std::span<HandItem> items, GoOn go_on = kToTheEnd);

  struct TextItem {
    Writer* writer;
    const DrawHooks* hooks;                 // of a C program: none, as what they throw is caught
    std::optional<std::string> piece = {};  // as next() returns,
    std::exception_ptr error = {};          // or throws; the others do not mind
  };
  // One more token of each text; of one whose prompt is not read, at most kMaxBlock tokens of that, which
  // give an empty piece. Without drafts: the tokens of other texts fill the block already.
  static void next(Batch& batch, std::span<TextItem> items);

  // --- from any thread

  // Ends what runs after the block of tokens that it is at. Who draws tokens asks is_cancelled() between
  // them.
  void cancel() { cancelled_ = true; }
  bool is_cancelled() const { return cancelled_; }
  void forget_cancel() { cancelled_ = false; }  // a call begins, to which earlier ones mean nothing

  // --- the past

  // Keeps the present state for undo(). The oldest of those kept are dropped so that all take at most
  // `max_bytes`; the newest always stays.
  void mark(size_t max_bytes);
  // Back to the newest mark, which is used up; false when there is none. Frozen stays frozen.
  bool undo();
  size_t marks() const { return marks_.size(); }
  size_t mark_bytes() const;

  void reset();                           // as new, without marks
  void wipe();                            // the same, with every byte that it held overwritten
  std::unique_ptr<Writer> clone() const;  // an independent copy, without marks

  // --- for snapshots: all that it holds beside the session's state and the marks

  struct Decoding {
    Sampler sampler;
    WipedVector<float> logits;        // empty, or [vocab_size]
    std::shared_ptr<Generator> text;  // of this writer alone
  };
  void save(ByteWriter& to) const;
  // Throws kBadSnapshot, and kUnsupported when an unfinished text needs the tokenizer that is null.
  Decoding read_decoding(ByteReader& from, const std::shared_ptr<const Tokenizer>& tokenizer) const;
  // As Session::restore(); drops the marks.
  void restore(uint64_t position, Decoding decoding, FunctionRef<void(std::span<std::byte>)> fill);

  // Files that it was loaded from or saved to, the latest last, and what they held then: so that a save finds
  // out whether somebody else has saved there since. Nothing: of a file that could not be loaded.
  struct File {
    std::string path;
    std::optional<uint64_t> checksum;
  };
  static constexpr size_t kMaxFiles = 16;
  std::vector<File> files;

 private:
  struct Mark {
    WipedVector<std::byte> state, decoding;
    uint64_t position;
    std::shared_ptr<const Tokenizer> tokenizer;  // of the unfinished text, if there was one
  };
  class HandRead;
  class Drafted;
  void note_read(std::span<const int32_t> ids);
  Generator& text();
  Forward forward();
  size_t vocab_size() const;

  std::unique_ptr<Session> session_;
  Decoding now_;
  uint64_t text_number_ = 0;
  std::atomic<bool> cancelled_ = false;
  std::deque<Mark> marks_;
  std::unique_ptr<DraftSource> drafts_;  // may be null; no part of a snapshot
  WipedVector<float> rows_;              // logits of what was drafted last
};

}  // namespace allmem
