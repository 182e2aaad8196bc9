// A generation as Python holds it.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "bindings/bindings.h"
#include "runtime/generate.h"

namespace allmem::python {

// Tokens with their scores, as take_tokens() gives them.
struct Drawn {
  int32_t id;
  float logprob;
  std::vector<std::pair<int32_t, float>> best;
};

// One text being written: by a session, which holds it, or by any Python function that runs a model.
struct GeneratorHandle {
  std::atomic<bool> busy = false;
  std::atomic<bool> cancelled = false;  // this text alone
  GenerateStats stats;                  // after the last step
  DrawHooks hooks;
  std::vector<Drawn> tokens;  // drawn since they were last taken
  // Of a session. Somebody else may have moved it on: then its text has another number, or it another
  // position.
  std::shared_ptr<SessionHandle> session;
  uint64_t text_number = 0, position = 0;
  // Of a function.
  std::unique_ptr<Generator> generator;
  Forward forward;

  bool is_cancelled() const { return cancelled || (session && session->writer->is_cancelled()); }

  // Of a session that is claimed. Throws kInvalidArgument when its text is another by now.
  void check_text() const {
    if (session->writer->text_number() == text_number && session->session().position() == position) return;
    throw Error(ErrorCode::kInvalidArgument,
                "The session was used for something else while this text was being generated; start again.");
  }
  // After a step of it.
  void note_text() {
    stats = *session->writer->stats();
    position = session->session().position();
  }
};

inline void require(const Claim& claim) {
  if (!claim.held()) throw InUseError("This generation is in use by another thread.");
}

}  // namespace allmem::python
