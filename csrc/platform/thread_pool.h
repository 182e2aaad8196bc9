// A small pool of threads for one caller, to spread the loops of a forward pass over.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

#include "platform/aligned_buffer.h"

namespace allmem {

// A view of a callable; unlike std::function it never allocates. The callable must outlive it.
template <class Signature>
class FunctionRef;
template <class Result, class... Args>
class FunctionRef<Result(Args...)> {
 public:
  template <class F>
  requires(!std::is_same_v<std::remove_cvref_t<F>, FunctionRef>)
      FunctionRef(F&& function)  // NOLINT: implicit on purpose
      : object_(const_cast<void*>(static_cast<const void*>(std::addressof(function)))),
        call_([](void* object, Args... args) -> Result {
          return (*static_cast<std::remove_reference_t<F>*>(object))(args...);
        }) {}
  Result operator()(Args... args) const { return call_(object_, args...); }

 private:
  void* object_;
  Result (*call_)(void*, Args...);
};

// One caller at a time. The caller works too, as worker 0, so that `threads` is the number of busy cores.
class ThreadPool {
 public:
  static constexpr int kMaxThreads = 256;

  // threads >= 1. Throws std::system_error when the system has no more threads.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls body(begin, end, worker) on slices that cover [0, n), each but the last a multiple of `grain`, and
  // returns when all are done. The slices depend only on n, grain and threads(). `worker` < threads() names
  // the thread, for its scratch memory. An exception of `body` is rethrown here (the first one). Calls do not
  // nest.
  using Body = FunctionRef<void(size_t begin, size_t end, size_t worker)>;
  void parallel(size_t n, size_t grain, Body body);

 private:
  struct Job {
    const Body* body;
    size_t n, slice;
  };
  void join();
  void work(size_t worker);
  bool run_one_slice(uint64_t& seen, size_t worker);

  // One word says which job is open and which of its slices nobody has taken yet, so that taking a slice is
  // one compare-and-swap that fails when the job is over: a worker that wakes up late can do no harm. Bits:
  // 32 job number, 16 slices in all, 16 slices taken.
  alignas(kAlignment) std::atomic<uint64_t> ticket_{0};
  alignas(kAlignment) std::atomic<uint32_t> done_{0};
  alignas(kAlignment) Job job_{};
  std::atomic<bool> stop_{false};
  std::atomic<bool> failed_{false};
  std::exception_ptr exception_;
  std::vector<std::thread> workers_;
};

}  // namespace allmem
