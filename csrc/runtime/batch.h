// Several sessions of one model that read together: each weight is fetched once for the tokens of all.
#pragma once

#include <memory>
#include <optional>
#include <span>

#include "platform/error.h"
#include "runtime/session.h"

namespace allmem {

// Room to compute in, and threads; sessions are named in each call, so that they come and go as they like,
// and are used alone between two calls. One caller at a time, for it and for the sessions of a call.
class Batch {
 public:
  // Throws kInvalidArgument, kOutOfMemory.
  Batch(std::shared_ptr<const Model> model, const SessionOptions& options);
  ~Batch();

  // What Session::forward() takes and gives, for one session.
  struct Item {
    Session* session;
    std::span<const int32_t> ids;
    LogitsFor which;
    std::span<float> logits;
    GoOn go_on = kToTheEnd;
    size_t read = 0;                  // ids that were read
    std::optional<Error> error = {};  // what forward() would have thrown; the others do not mind
  };

  // As if each session read alone: in fast mode with the same results bit for bit, in exact mode
  // but for float rounding. Throws what is no session's own: kInvalidArgument for one that is named twice or
  // is null, with nothing changed; what a host's threads or a `go_on` throw, and kOutOfMemory for threads
  // that cannot be started: each session has then read what its item says, or is poisoned.
  void forward(std::span<Item> items);

  void wipe();                 // overwrites what was computed here
  size_t total_bytes() const;  // that it has allocated
  int threads() const;
  const Model& model() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace allmem
