// What the binding files share: one bind_* function a class, and the session as Python holds it.
#pragma once

#include <pybind11/pybind11.h>

#include <atomic>
#include <memory>
#include <utility>

#include "platform/error.h"
#include "runtime/writer.h"

namespace allmem::python {

// A session that two Python threads may touch by mistake: the second gets an error instead of a data race.
struct SessionHandle {
  explicit SessionHandle(std::unique_ptr<Writer> owned) : writer(std::move(owned)) {}
  const Session& session() const { return writer->session(); }
  std::unique_ptr<Writer> writer;
  std::atomic<bool> busy = false;
  std::atomic<bool> cancelled = false;  // set from any thread, looked at between blocks of tokens
};

// Claims a session for the scope of one call.
class InUse {
 public:
  explicit InUse(SessionHandle& handle) : handle_(handle) {
    if (handle.busy.exchange(true)) {
      throw Error(ErrorCode::kInvalidArgument,
                  "This session is in use by another thread; give each thread its own (Session.clone()).");
    }
  }
  ~InUse() { handle_.busy = false; }
  InUse(const InUse&) = delete;
  InUse& operator=(const InUse&) = delete;
  Writer* operator->() { return handle_.writer.get(); }
  Writer& operator*() { return *handle_.writer; }

 private:
  SessionHandle& handle_;
};

// Ctrl-C acts between two blocks of a long call: raises what Python's signal handler raised.
inline void check_signals() {
  if (PyErr_CheckSignals() != 0) throw pybind11::error_already_set();
}

// Python's numbers as the sampler takes them. Throws kInvalidArgument for what is far out of range; the
// sampler checks the rest.
SamplerOptions sampler_options(double temperature, int64_t top_k, double top_p, double min_p,
                               double repetition_penalty, int64_t repetition_window, uint64_t seed);

void bind_errors();
void bind_model(pybind11::module_& m);
void bind_session(pybind11::module_& m);
void bind_generator(pybind11::module_& m);

}  // namespace allmem::python

namespace allmem {
void bind_tokenizer(pybind11::module_& module);
}
