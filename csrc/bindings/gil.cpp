// Counts the threads that wait for the lock, so that the interpreter's end can let them through first.
#include "bindings/gil.h"

#include <atomic>
#include <chrono>
#include <thread>

namespace allmem::python {
namespace {

std::atomic<int> waiting = 0;
std::atomic<bool> ending = false;
std::atomic<std::thread::id> ends;  // the thread that ends the interpreter

// Takes the lock by `take`, unless it is too late for that.
template <class Take>
auto take_gil(const Take& take) {
  ++waiting;
  if (ending && ends.load() != std::this_thread::get_id()) {
    --waiting;
    while (true) std::this_thread::sleep_for(std::chrono::hours(1));  // until the process ends
  }
  const auto taken = take();
  --waiting;
  return taken;
}

}  // namespace

void end_of_interpreter() {
  ends = std::this_thread::get_id();
  ending = true;
  PyThreadState* const state = PyEval_SaveThread();
  while (waiting > 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  PyEval_RestoreThread(state);
}

WithoutGil::~WithoutGil() {
  take_gil([this] {
    PyEval_RestoreThread(state_);
    return true;
  });
}

WithGil::WithGil()
    : state_(PyGILState_Check() ? PyGILState_Ensure() : take_gil([] { return PyGILState_Ensure(); })) {}

}  // namespace allmem::python
