// Threads that are shared: how many there are, that everybody gets a turn, and that a failure keeps nobody
// waiting.
#include "platform/shared_threads.h"

#include <doctest/doctest.h>

#include <atomic>
#include <optional>
#include <thread>

using namespace allmem;

TEST_CASE("one after the other, all use the same threads") {
  SharedThreads shared(4);
  ThreadPool* first = nullptr;
  for (int i = 0; i < 3; ++i) {
    const auto lease = shared.lease(4);
    if (first == nullptr) first = &lease.pool();
    CHECK(&lease.pool() == first);
    CHECK(lease.pool().threads() == 4);
  }
}

TEST_CASE("at once there are never more than the most, and everybody gets a turn") {
  SharedThreads shared(4);
  std::atomic<int> working = 0, most = 0, done = 0;
  std::vector<std::thread> callers;
  for (int i = 0; i < 12; ++i) {
    callers.emplace_back([&, threads = 1 + i % 4] {
      for (int turn = 0; turn < 50; ++turn) {
        const auto lease = shared.lease(threads);
        CHECK(lease.pool().threads() == threads);
        const int now = working += threads;
        for (int seen = most; now > seen && !most.compare_exchange_weak(seen, now);) {
        }
        std::atomic<size_t> sum = 0;
        lease.pool().parallel(100, 1, [&](size_t begin, size_t end, size_t) { sum += end - begin; });
        CHECK(sum == 100);
        working -= threads;
      }
      ++done;
    });
  }
  for (std::thread& caller : callers) caller.join();
  CHECK(done == 12);
  CHECK(most <= 4);
}

TEST_CASE("those who fit beside each other do not wait") {
  SharedThreads shared(4);
  const auto two = shared.lease(2), other_two = shared.lease(2);  // the second would never return
  CHECK(&two.pool() != &other_two.pool());
}

TEST_CASE("who wants more than the most gets it, alone") {
  SharedThreads shared(2);
  const auto lease = shared.lease(5);
  CHECK(lease.pool().threads() == 5);
}

TEST_CASE("the process's threads are there while somebody holds them") {
  const auto one = SharedThreads::of_process(), other = SharedThreads::of_process();
  CHECK(one == other);
}
