// A small pool of threads for one caller, its own or a host's, to spread the loops of a forward pass over.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <thread>
#include <vector>

#include "platform/aligned_buffer.h"
#include "platform/function_ref.h"

namespace allmem {

// A host's threads: calls task(i) once for each i < count, in any order and on any threads, and returns when
// all have returned.
using RunTasks = std::function<void(size_t count, FunctionRef<void(size_t i)> task)>;

// One caller at a time. The caller works too, as worker 0, so that `threads` is the number of busy cores.
class ThreadPool {
 public:
  static constexpr int kMaxThreads = 256;

  // threads >= 1. Throws std::system_error when the system has no more threads.
  explicit ThreadPool(int threads);
  // Starts none, and has `run_tasks` run as many tasks as there would be threads. What that throws parallel()
  // throws, when all slices are done.
  ThreadPool(int threads, RunTasks run_tasks);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return threads_; }

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
  void work(size_t worker);
  void finish(uint64_t slices);
  void run_slices(size_t worker);
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
  const int threads_;
  const RunTasks run_tasks_;
  std::vector<std::thread> workers_;
};

}  // namespace allmem
