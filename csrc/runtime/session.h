// All mutable state of one conversation, allocated once at its final size.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "platform/thread_pool.h"
#include "runtime/model.h"

namespace allmem {

struct SessionOptions {
  int threads = 0;  // 0: as many as the machine has cores for this process
};

enum class LogitsFor { kNone, kLast, kAll };

// One caller at a time. An error inside forward() poisons the session: what reads, copies or freezes it
// then throws kPoisoned until reset(), wipe() or restore().
class Session {
 public:
  static constexpr uint64_t kMaxPosition = uint64_t{1} << 53;  // RoPE angles are exact below it

  Session(std::shared_ptr<const Model> model, const SessionOptions& options);
  ~Session();

  // Reads `ids`. Writes logits for none, the last, or all of them: `logits` is [rows, vocab] with rows = 0,
  // 1, ids.size(). Throws kInvalidArgument (empty, an id out of range, logits too small: the session is
  // unchanged) or kCancelled.
  void forward(std::span<const int32_t> ids, LogitsFor which, std::span<float> logits);

  uint64_t position() const;  // tokens read so far
  void reset();               // as new, but frozen if it was; also after an error
  void wipe();                // the same, with every byte that this session held overwritten
  // Frozen, the memory is read but never written. What was read before is learned first, also what an
  // unfinished chunk has (unless `learn` is false): it would be gone from the window before that chunk ends.
  void freeze(bool frozen, bool learn = true);
  bool frozen() const;
  std::unique_ptr<Session> clone() const;  // an independent copy, same state
  size_t state_bytes() const;              // K/V rings and memory
  size_t total_bytes() const;  // everything the session allocated, activations and scratch included
  std::span<const float> state(size_t index) const;  // of info().states[index], for inspection
  const Model& model() const;
  int threads() const;

  // The whole state as one block of bytes, and its return: what save and load build on. restore() throws
  // kInvalidArgument when the size is not this session's; it ends a poisoning.
  std::span<const std::byte> state_memory() const;
  void restore(std::span<const std::byte> state, uint64_t position);
  // The same for a state that `fill` writes over the one that is there, all of it. When that throws, the
  // session is poisoned.
  void restore(uint64_t position, FunctionRef<void(std::span<std::byte>)> fill);

  // From any thread: makes a running forward() throw kCancelled within one block of tokens (then reset() is
  // needed). When none is running, the next one throws kCancelled before it has changed anything.
  void cancel();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace allmem
