// The thread pool: every item once, errors reported, no thread left waiting.
#include "platform/thread_pool.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>
#include <stdexcept>

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

TEST_CASE("a pool can be destroyed at once, before its threads have begun") {
  for (int round = 0; round < 500; ++round) {
    ThreadPool pool(3);
    if (round % 2 == 0) pool.parallel(12, 1, [](size_t, size_t, size_t) {});
  }
}
