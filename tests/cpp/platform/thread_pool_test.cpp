// The thread pool: every item once, errors reported, no thread left waiting.
#include "platform/thread_pool.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <thread>
#include <vector>

using allmem::ThreadPool;

TEST_CASE("every item is done exactly once, in slices that are multiples of the grain") {
  for (const int threads : {1, 2, 3, 7}) {
    ThreadPool pool(threads);
    for (const size_t n : {size_t{1}, size_t{5}, size_t{64}, size_t{1000}}) {
      for (const size_t grain : {size_t{1}, size_t{16}, size_t{2000}}) {
        std::vector<int> done(n, 0);
        pool.parallel(n, grain, [&](size_t begin, size_t end, size_t worker) {
          CHECK(begin % grain == 0);
          CHECK(worker < static_cast<size_t>(threads));
          for (size_t i = begin; i < end; ++i) ++done[i];
        });
        CHECK(std::accumulate(done.begin(), done.end(), size_t{0}) == n);
        CHECK(*std::min_element(done.begin(), done.end()) == 1);
      }
    }
  }
}

TEST_CASE("nothing is called for no items") {
  ThreadPool pool(2);
  pool.parallel(0, 1, [](size_t, size_t, size_t) { FAIL("called"); });
}

TEST_CASE("thousands of short loops in a row each see the writes of the one before") {
  ThreadPool pool(4);
  std::vector<size_t> values(64, 0);
  for (size_t round = 0; round < 3000; ++round) {
    pool.parallel(values.size(), 1, [&](size_t begin, size_t end, size_t) {
      for (size_t i = begin; i < end; ++i) values[i] += values[i] == round ? 1 : 1000000;
    });
  }
  for (const size_t value : values) CHECK(value == 3000);
}

TEST_CASE("an exception in any slice reaches the caller, and the pool works on") {
  ThreadPool pool(3);
  for (int round = 0; round < 100; ++round) {
    CHECK_THROWS_AS(pool.parallel(100, 1,
                                  [&](size_t begin, size_t, size_t) {
                                    if (begin >= 40) throw std::runtime_error("no");
                                  }),
                    std::runtime_error);
    size_t sum = 0;
    pool.parallel(1, 1, [&](size_t, size_t end, size_t) { sum += end; });
    CHECK(sum == 1);
  }
}

TEST_CASE(
    "a host's threads do every item once, also when tasks are missing, too many, or followed by an "
    "exception") {
  constexpr size_t kThreads = 3, kItems = 1000;
  using Task = allmem::FunctionRef<void(size_t)>;
  const std::vector<allmem::RunTasks> hosts = {
      [](size_t count, Task task) {
        std::vector<std::thread> threads;
        for (size_t i = 0; i < count; ++i) threads.emplace_back(task, i);
        for (std::thread& thread : threads) thread.join();
      },
      [](size_t, Task) {},
      [](size_t count, Task task) {
        for (size_t i = 2 * count; i-- > 0;) task(i);
      },
      [](size_t, Task task) {
        task(1);
        throw std::runtime_error("no");
      },
  };
  for (size_t host = 0; host < hosts.size(); ++host) {
    size_t asked = 0;
    ThreadPool pool(kThreads, [&](size_t count, Task task) {
      CHECK(count == kThreads);
      ++asked;
      hosts[host](count, task);
    });
    CHECK(pool.threads() == kThreads);
    for (size_t round = 1; round <= 20; ++round) {
      std::vector<int> done(kItems, 0);
      const auto run = [&] {
        pool.parallel(kItems, 1, [&](size_t begin, size_t end, size_t worker) {
          CHECK(worker < kThreads);
          for (size_t i = begin; i < end; ++i) ++done[i];
        });
      };
      if (host == 3) {
        CHECK_THROWS_AS(run(), std::runtime_error);
      } else {
        run();
      }
      CHECK(std::count(done.begin(), done.end(), 1) == kItems);
      CHECK(asked == round);
    }
  }
}

TEST_CASE("an exception of an item in a host's threads reaches the caller") {
  ThreadPool pool(2, [](size_t count, allmem::FunctionRef<void(size_t)> task) {
    for (size_t i = 0; i < count; ++i) task(i);
  });
  const auto fail = [](size_t, size_t, size_t) { throw std::runtime_error("no"); };
  CHECK_THROWS_AS(pool.parallel(100, 1, fail), std::runtime_error);
  size_t sum = 0;
  pool.parallel(100, 1, [&](size_t begin, size_t end, size_t) { sum += end - begin; });
  CHECK(sum == 100);
}

TEST_CASE("a pool can be destroyed at once, before its threads have begun") {
  for (int round = 0; round < 500; ++round) {
    ThreadPool pool(3);
    if (round % 2 == 0) pool.parallel(12, 1, [](size_t, size_t, size_t) {});
  }
}
