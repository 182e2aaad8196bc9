// What the binding files share: one bind_* function a class, and the session as Python holds it.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <atomic>
#include <memory>
#include <utility>
#include <vector>

#include "bindings/gil.h"
#include "platform/claim.h"
#include "platform/error.h"
#include "runtime/model_text.h"
#include "runtime/writer.h"

namespace allmem::python {

// A session or a text that another thread is using: SessionInUseError.
class InUseError : public Error {
 public:
  explicit InUseError(const std::string& message) : Error(ErrorCode::kInvalidArgument, message) {}
};

// A session that two Python threads may touch by mistake: the second gets an error instead of a data race.
struct SessionHandle {
  explicit SessionHandle(std::unique_ptr<Writer> owned) : writer(std::move(owned)) { note(); }
  const Session& session() const { return writer->session(); }
  std::unique_ptr<Writer> writer;
  std::atomic<bool> busy = false;

  // What any thread may ask for while another one is in a call: as it was when the last call had ended.
  std::atomic<bool> unfinished = false;
  std::atomic<size_t> marks = 0, mark_bytes = 0;
  void note() {
    unfinished = writer->unfinished();
    marks = writer->marks();
    mark_bytes = writer->mark_bytes();
  }
};

// A session's writer, claimed for the scope of one call. Throws InUseError.
class ClaimedWriter {
 public:
  explicit ClaimedWriter(SessionHandle& handle) : claim_(handle.busy), handle_(handle) {
    if (claim_.held()) return;
    throw InUseError("This session is in use by another thread; give each thread its own (Session.clone()).");
  }
  ~ClaimedWriter() { handle_.note(); }
  ClaimedWriter(const ClaimedWriter&) = delete;
  ClaimedWriter& operator=(const ClaimedWriter&) = delete;
  Writer* operator->() { return handle_.writer.get(); }
  Writer& operator*() { return *handle_.writer; }

 private:
  Claim claim_;
  SessionHandle& handle_;
};

// Ctrl-C acts between two blocks of a long call: raises what Python's signal handler raised.
inline void check_signals() {
  if (PyErr_CheckSignals() != 0) throw pybind11::error_already_set();
}
// The same for a call that goes on without the lock.
inline bool go_on_unless_interrupted() {
  const WithGil with;
  check_signals();
  return true;
}

using Ids = pybind11::array_t<int64_t, pybind11::array::c_style>;

// Python's options of generating, by their names, and back. Throws kInvalidArgument for what is of another
// type, or so far out of range that the field cannot hold it; the sampler checks the rest.
GenerateOptions generate_options(const pybind11::dict& options);
pybind11::dict options_dict(const GenerateOptions& options);

// Token ids from whatever numpy makes integers of: a list, an array, a tensor. Throws kInvalidArgument for
// anything else, and for an id that no vocabulary has; who reads them checks the rest.
std::vector<int32_t> narrow_ids(const pybind11::object& ids);

// An instance of the error's class in allmem_edge/errors.py.
pybind11::object exception_of(const Error& error);

void bind_batch(pybind11::module_& m);
void bind_errors();
void bind_model(pybind11::module_& m);
void bind_session(pybind11::module_& m);
void bind_generator(pybind11::module_& m);
void bind_text(pybind11::module_& m);

}  // namespace allmem::python

namespace allmem {
void bind_tokenizer(pybind11::module_& module);
}
