// All mutable state of one conversation, allocated once at its final size.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "platform/function_ref.h"
#include "platform/thread_pool.h"
#include "platform/wipe.h"
#include "runtime/model.h"

namespace allmem {

struct SessionState;

struct SessionOptions {
  int threads = 0;       // 0: one for each fast core of this process
  RunTasks run_tasks{};  // a host's threads, in the place of those that sessions share
};

enum class LogitsFor { kNone, kLast, kAll };

// Asked between two blocks of tokens, with how many have been read; false ends the call there.
using GoOn = FunctionRef<bool(size_t read)>;
// Of each file its own: an inline variable's symbol would be seen outside the static library.
constexpr auto kToTheEnd = [](size_t) { return true; };
// What a caller is told when such a call was ended.
constexpr const char* kReadingCancelled = "Reading was cancelled between two blocks of tokens.";

// Throws kInvalidArgument for no ids, and for one that is not below `vocab_size`.
void check_ids(std::span<const int32_t> ids, size_t vocab_size);

// One caller at a time, Batch (runtime/batch.h) among them. An error inside forward() poisons the session:
// what reads, copies or freezes it then throws kPoisoned until reset(), wipe() or restore().
class Session {
 public:
  static constexpr uint64_t kMaxPosition = uint64_t{1} << 53;  // RoPE angles are exact below it

  Session(std::shared_ptr<const Model> model, const SessionOptions& options);
  ~Session();

  // Reads `ids`, in blocks of kMaxBlock at most. Writes logits for none, the last, or all of them: `logits`
  // is [rows, vocab] with rows = 0, 1, ids.size(). Returns how many ids were read: where `go_on` ended it (or
  // threw) the session is as if only those had been given. Throws kInvalidArgument (empty, an id out of
  // range, logits too small) with the session unchanged.
  size_t forward(std::span<const int32_t> ids, LogitsFor which, std::span<float> logits,
                 GoOn go_on = kToTheEnd);

  // Reads a token and a draft of what follows it, some of which may be wrong: once their logits, [ids,
  // vocab], are there, `accept` says how many of `ids` are right, at least 1. The others are taken back: the
  // state is, byte for byte, what it would be had only the right ones been read, and these have the same
  // logits, bit for bit. Returns how many they are. Throws what forward() does, and kInvalidArgument for more
  // ids than most_speculative(); what `accept` throws poisons the session.
  size_t speculate(std::span<const int32_t> ids, std::span<float> logits, FunctionRef<size_t()> accept);
  // How many ids that takes now. 1 where nothing could be drafted: next to where a memory learns, in exact
  // mode, with a linear memory that is not frozen.
  size_t most_speculative();

  uint64_t position() const;  // tokens read so far
  void reset();               // as new, but frozen if it was; also after an error
  void wipe();                // the same, with every byte that this session held overwritten
  // Frozen, the memory is read but never written. What was read before is learned first, also what an
  // unfinished chunk has (unless `learn` is false): it would be gone from the window before that chunk ends.
  // After an error it learns nothing, and only sets what holds once reset() or restore() has ended that.
  void freeze(bool frozen, bool learn = true);
  bool frozen() const;
  std::unique_ptr<Session> clone() const;  // an independent copy, same state
  size_t state_bytes() const;              // K/V rings and memory
  size_t total_bytes() const;  // everything the session allocated, activations and scratch included
  WipedVector<float> state(size_t index) const;  // a copy of info().states[index], for inspection
  const Model& model() const;
  int threads() const;

  // The whole state as one block of bytes, and its return: what save and load build on. restore() throws
  // kInvalidArgument when the size is not this session's; it ends a poisoning.
  std::span<const std::byte> state_memory() const;
  void restore(std::span<const std::byte> state, uint64_t position);
  // The same for a state that `fill` writes over the one that is there, all of it. When that throws, the
  // session is poisoned.
  void restore(uint64_t position, FunctionRef<void(std::span<std::byte>)> fill);

 private:
  friend class Batch;
  struct Impl;
  SessionState& own_state();
  // Throws what forward() throws before anything changes.
  void check_call(std::span<const int32_t> ids, LogitsFor which, std::span<const float> logits) const;

  std::unique_ptr<Impl> impl_;
};

}  // namespace allmem
