// Pages of zeros, and zeros again.
#include "platform/page_buffer.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <span>
#include <vector>

#include "platform/zeros.h"

using namespace allmem;

TEST_CASE("zeros are told from anything else, at each place and of any size") {
  for (const size_t size :
       {size_t{0}, size_t{1}, size_t{7}, size_t{64}, size_t{67}, size_t{4096}, size_t{9001}}) {
    std::vector<std::byte> bytes(size);
    CHECK(are_zeros(bytes));
    for (size_t i = 0; i < size; ++i) {
      bytes[i] = std::byte{1};
      CHECK_FALSE(are_zeros(bytes));
      make_zeros(bytes);
      CHECK(bytes[i] == std::byte{0});
    }
    CHECK(are_zeros(bytes));
  }
}

TEST_CASE("a buffer that is cleared is as new, wherever it was written to") {
  for (const size_t size : {size_t{0}, size_t{100}, size_t{4096}, size_t{10} << 20}) {
    PageBuffer buffer(size);
    const std::span<std::byte> bytes(buffer.data(), size);
    CHECK(are_zeros(bytes));
    std::ranges::fill(bytes, std::byte{7});
    buffer.clear();
    CHECK(are_zeros(bytes));
    if (size > 0) bytes.back() = std::byte{1};
    buffer.clear();
    CHECK(are_zeros(bytes));
  }
}
