// Running a program over blocks of tokens, of one session or of several: the threads, and the memory for the
// activations of a block.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "graph/program.h"
#include "platform/error.h"
#include "platform/page_buffer.h"
#include "platform/shared_threads.h"
#include "runtime/session.h"

namespace allmem {

// What changes as a session reads.
struct SessionState {
  explicit SessionState(const Program& program);
  void reset();  // as new, but frozen if it was

  const Program& program;
  PageBuffer bytes, derived;
  uint64_t position = 0;
  bool is_frozen = false;
  bool is_fresh = true;  // the bytes were set from outside since the last block
  bool is_poisoned = false;

 private:
  void copy_initial_weights();
};

// What one session is to read, and how far it came.
struct Reading {
  SessionState* session;
  std::span<const int32_t> ids;
  LogitsFor which;
  float* logits;                    // [rows, vocab] with rows = 0, 1, ids.size()
  GoOn go_on = kToTheEnd;           // false: no more of `ids`
  bool speculative = false;         // all but the first of `ids`, which fit into a block, may be taken back
  size_t read = 0;                  // ids that were read
  std::optional<Error> error = {};  // of this session alone, which is poisoned
};

// One caller at a time.
class Runner {
 public:
  // For sessions of this program, which outlives it. Throws std::bad_alloc, and kOutOfMemory for threads that
  // the system does not have.
  Runner(const Program& program, const SessionOptions& options);

  // Reads with all sessions at once: the one loop over blocks. Each gets what it would get alone. What is
  // thrown is no session's own, and poisons those whose tokens were in the block.
  void read(std::span<Reading> readings);
  // How many `ids` a speculative reading may have now, at least 1.
  size_t most_speculative(SessionState& session);
  // Takes back the last `count` of the `read` tokens of a speculative reading, the last to be read.
  void take_back(SessionState& session, size_t read, size_t count);
  void settle(SessionState& session);  // what is pending in its states becomes part of them
  void wipe();                         // overwrites what was computed
  size_t bytes() const;                // that it has allocated
  int threads() const { return threads_; }

 private:
  template <class Run>
  void with_threads(const Run& run);
  RunContext context(ThreadPool& pool);
  RunContext context_of(SessionState& session, ThreadPool& pool, uint64_t position, size_t tokens);
  bool fill_block(std::span<Reading> readings);
  void run_block(ThreadPool& pool);
  void check_hidden(const Step& head);
  void run_head(RunContext ctx);
  void end_block();

  const Program& program_;
  const int threads_;
  const bool has_host_threads_;
  std::shared_ptr<SharedThreads> shared_;  // null where nobody has to be waited for
  ThreadPool own_;                         // one thread, or a host's
  PageBuffer arena_, scratch_;
  std::vector<int64_t> ids_;          // of the block
  std::vector<Segment> segments_;     // of the block
  std::vector<Reading*> of_segment_;  // whose each of them is
  size_t tokens_ = 0;                 // of the block
};

}  // namespace allmem
