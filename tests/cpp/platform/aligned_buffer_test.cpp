// Aligned memory: where it lies, what it holds, and that too much of it is an exception.
#include "platform/aligned_buffer.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <utility>

using namespace allmem;

TEST_CASE("a buffer is aligned, zeroed and writable to its last byte") {
  for (const size_t size : {1u, 63u, 64u, 65u, 4096u, 1000003u}) {
    AlignedBuffer buffer(size);
    CHECK(buffer.size() == size);
    CHECK(reinterpret_cast<uintptr_t>(buffer.data()) % kAlignment == 0);
    CHECK(std::all_of(buffer.data(), buffer.data() + size, [](std::byte b) { return b == std::byte{0}; }));
    std::fill(buffer.data(), buffer.data() + size, std::byte{1});
  }
}

TEST_CASE("a buffer of no bytes has no memory") {
  CHECK(AlignedBuffer(0).data() == nullptr);
  CHECK(AlignedBuffer().size() == 0);
}

TEST_CASE("a moved buffer keeps its address") {
  AlignedBuffer buffer(100);
  const std::byte* address = buffer.data();
  const AlignedBuffer moved = std::move(buffer);
  CHECK(moved.data() == address);
  CHECK(moved.size() == 100);
}

TEST_CASE("more memory than there is, and sizes that overflow, are std::bad_alloc") {
  for (const size_t size : {SIZE_MAX, SIZE_MAX - 63, SIZE_MAX - 64, SIZE_MAX - 65, SIZE_MAX / 2}) {
    CAPTURE(size);
    CHECK_THROWS_AS(AlignedBuffer{size}, std::bad_alloc);
  }
}

TEST_CASE("align_up gives the next multiple of the alignment, or std::bad_alloc") {
  CHECK(align_up(0) == 0);
  CHECK(align_up(1) == 64);
  CHECK(align_up(64) == 64);
  CHECK(align_up(65) == 128);
  CHECK(align_up(SIZE_MAX - 63) == SIZE_MAX - 63);
  CHECK_THROWS_AS(align_up(SIZE_MAX - 62), std::bad_alloc);
  CHECK_THROWS_AS(align_up(SIZE_MAX), std::bad_alloc);
}
