// Giving up the interpreter's lock and taking it back. A thread that wants it back while the interpreter ends
// would be ended in the middle of a C++ function, which aborts the process: such a thread waits for the end
// instead.
#pragma once

#include <pybind11/pybind11.h>

namespace allmem::python {

// From here on no thread but the calling one takes the lock back; waits for those that are about to. For
// atexit.
void end_of_interpreter();

// Without the lock for the scope of a call.
class WithoutGil {
 public:
  WithoutGil() : state_(PyEval_SaveThread()) {}
  ~WithoutGil();
  WithoutGil(const WithoutGil&) = delete;
  WithoutGil& operator=(const WithoutGil&) = delete;

 private:
  PyThreadState* state_;
};

// With the lock, on any thread, whether it has it or not.
class WithGil {
 public:
  WithGil();
  ~WithGil() { PyGILState_Release(state_); }
  WithGil(const WithGil&) = delete;
  WithGil& operator=(const WithGil&) = delete;

 private:
  PyGILState_STATE state_;
};

}  // namespace allmem::python
