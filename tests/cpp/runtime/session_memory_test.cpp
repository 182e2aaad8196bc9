// A session's memory is of fixed size, and nothing is allocated after it was made.
#include <doctest/doctest.h>

#include <atomic>
#include <cstdlib>
#include <vector>

#include "platform/aligned_buffer.h"
#include "runtime/session.h"
#include "tiny_session.h"

namespace {
std::atomic<size_t> allocations{0};
}  // namespace

// Counts what is allocated by whatever means, where no sanitizer wants to do that itself.
#if defined(__GLIBC__) && !defined(ALLMEM_SANITIZED)
constexpr bool kCounts = true;
extern "C" {
void* __libc_malloc(size_t size);
void* __libc_calloc(size_t count, size_t size);
void* __libc_realloc(void* block, size_t size);
void* __libc_memalign(size_t alignment, size_t size);

void* malloc(size_t size) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  return __libc_malloc(size);
}
void* calloc(size_t count, size_t size) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  return __libc_calloc(count, size);
}
void* realloc(void* block, size_t size) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  return __libc_realloc(block, size);
}
void* aligned_alloc(size_t alignment, size_t size) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  return __libc_memalign(alignment, size);
}
}
#else
constexpr bool kCounts = false;
#endif

using namespace allmem;
using namespace allmem::test;

TEST_CASE("a decode step allocates nothing, and a session's bytes never change") {
  const size_t at_first = allocations.load();
  const AlignedBuffer counted(8);
  CHECK((allocations.load() > at_first) == kCounts);
  for (const TinyConfig& config : {TinyConfig{}, quantised(4)}) {
    const TinyModel tiny(config);
    Session session(load(tiny), {.threads = 2});
    const auto ids = random_ids(64, config.vocab);
    std::vector<float> row(static_cast<size_t>(config.vocab));
    const size_t bytes = session.total_bytes(), state = session.state_bytes();
    session.forward(ids, LogitsFor::kLast, row);
    const size_t before = allocations.load();
    for (const int32_t id : ids) session.forward({&id, 1}, LogitsFor::kLast, row);
    session.forward(ids, LogitsFor::kLast, row);
    CHECK(allocations.load() == before);
    CHECK(session.total_bytes() == bytes);
    CHECK(session.state_bytes() == state);
    CHECK(session.state_bytes() == session.model().info().state_bytes);
  }
}

TEST_CASE("a session's bytes are equal after 1,000 and 100,000 tokens, and none are allocated between") {
  const TinyModel tiny({.vocab = 5,
                        .width = 4,
                        .heads = 2,
                        .kv_heads = 1,
                        .dim = 2,
                        .window = 3,
                        .sinks = 1,
                        .hidden = 2,
                        .chunk = 2});
  Session session(load(tiny), {.threads = 1});
  const auto ids = random_ids(1000, tiny.config.vocab);
  std::vector<float> row(static_cast<size_t>(tiny.config.vocab));
  for (const int32_t id : ids) session.forward({&id, 1}, LogitsFor::kLast, row);
  const size_t before = allocations.load(), bytes = session.total_bytes();
  while (session.position() < 100'000) session.forward(ids, LogitsFor::kLast, row);
  CHECK(allocations.load() == before);
  CHECK(session.total_bytes() == bytes);
  CHECK(session.state_bytes() == session.model().info().state_bytes);
}
