// Workers spin for some microseconds between loops, as the next one usually follows at once, and then sleep.
#include "platform/thread_pool.h"

#include <algorithm>
#include <utility>

#include "platform/waiting.h"

namespace allmem {

namespace {

constexpr int kSpins = 4000;  // about 20 to 100 µs
constexpr size_t kSlicesPerThread =
    2;  // so that a slow core takes fewer; more would cut reading into short runs

void pause() {
#if defined(__x86_64__) || defined(_M_X64)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

uint32_t slices_of(uint64_t ticket) { return static_cast<uint32_t>(ticket >> 16) & 0xFFFF; }
uint32_t taken_of(uint64_t ticket) { return static_cast<uint32_t>(ticket) & 0xFFFF; }

}  // namespace

ThreadPool::ThreadPool(int threads, RunTasks run_tasks)
    : threads_(std::clamp(threads, 1, kMaxThreads)), run_tasks_(std::move(run_tasks)) {}

ThreadPool::ThreadPool(int threads) : ThreadPool(threads, nullptr) {
  const size_t count = static_cast<size_t>(threads_) - 1;
  workers_.reserve(count);
  // Where the system has no more, the destructor ends those that have begun: the other constructor is done.
  for (size_t i = 0; i < count; ++i) workers_.emplace_back([this, i] { work(i + 1); });
}

ThreadPool::~ThreadPool() {
  stop_.store(true, std::memory_order_relaxed);
  ticket_.fetch_add(uint64_t{1} << 32, std::memory_order_release);
  wake_all(ticket_);
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::parallel(size_t n, size_t grain, Body body) {
  if (n == 0) return;
  const auto threads = static_cast<size_t>(threads_);
  grain = std::max<size_t>(grain, 1);
  const size_t grains = (n - 1) / grain + 1;
  const size_t slice = std::max<size_t>(grains / (threads * kSlicesPerThread), 1) * grain;
  if (threads == 1 || slice >= n) {
    body(0, n, 0);
    return;
  }
  const uint64_t slices = (n - 1) / slice + 1;
  job_ = {&body, n, slice};
  done_.store(0, std::memory_order_relaxed);
  failed_.store(false, std::memory_order_relaxed);
  const uint64_t number = (ticket_.load(std::memory_order_relaxed) >> 32) + 1;
  ticket_.store(number << 32 | slices << 16, std::memory_order_release);
  {
    // Also when a host's function throws: its threads may still be at work on this job.
    const struct Finish {
      ThreadPool& pool;
      uint64_t slices;
      ~Finish() { pool.finish(slices); }
    } at_the_end{*this, slices};
    if (run_tasks_) {
      run_tasks_(threads, [&](size_t i) {
        if (i < threads) run_slices(i);
      });
    } else {
      wake_all(ticket_);
    }
  }
  if (failed_.load(std::memory_order_relaxed)) std::rethrow_exception(std::exchange(exception_, nullptr));
}

// Does what is left of the open job as worker 0, and waits for the others.
void ThreadPool::finish(uint64_t slices) {
  run_slices(0);
  uint32_t done = done_.load(std::memory_order_acquire);
  for (int spin = 0; done != slices; done = done_.load(std::memory_order_acquire)) {
    if (++spin < kSpins) {
      pause();
    } else {
      wait_for_change(done_, done);
    }
  }
}

void ThreadPool::run_slices(size_t worker) {
  uint64_t seen = ticket_.load(std::memory_order_acquire);
  while (run_one_slice(seen, worker)) {
  }
}

// Takes and runs a slice of the open job; false when none is left. `seen` is the last value read of the
// ticket.
bool ThreadPool::run_one_slice(uint64_t& seen, size_t worker) {
  do {
    if (taken_of(seen) >= slices_of(seen)) return false;
  } while (
      !ticket_.compare_exchange_weak(seen, seen + 1, std::memory_order_acquire, std::memory_order_acquire));
  const Job job = job_;  // stays as it is until this slice is done
  const size_t begin = taken_of(seen) * job.slice;
  try {
    (*job.body)(begin, std::min(begin + job.slice, job.n), worker);
  } catch (...) {
    if (!failed_.exchange(true, std::memory_order_relaxed)) exception_ = std::current_exception();
  }
  const uint32_t slices = slices_of(seen);
  if (done_.fetch_add(1, std::memory_order_acq_rel) + 1 == slices) wake_all(done_);
  seen = ticket_.load(std::memory_order_acquire);
  return true;
}

void ThreadPool::work(size_t worker) {
  uint64_t seen = ticket_.load(std::memory_order_acquire);
  while (true) {
    while (run_one_slice(seen, worker)) {
    }
    // `seen` may already be the ticket of the destructor, after which no other comes: look before waiting for
    // a change.
    if (stop_.load(std::memory_order_relaxed)) return;
    uint64_t next = ticket_.load(std::memory_order_acquire);
    for (int spin = 0; next == seen && spin < kSpins; ++spin) {
      pause();
      next = ticket_.load(std::memory_order_acquire);
    }
    if (next == seen) {
      wait_for_change(ticket_, seen);
      next = ticket_.load(std::memory_order_acquire);
    }
    seen = next;
  }
}

}  // namespace allmem
