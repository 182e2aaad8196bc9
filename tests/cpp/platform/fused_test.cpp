// Products that are not rounded: against integers, which are not either.
#include "platform/fused.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <random>

using namespace allmem;

TEST_CASE("a float product and a sum are rounded once, to the nearest and of two as near to the even one") {
  CHECK(fused_multiply_add(1 + 0x1p-12f, 1 + 0x1p-12f, -1) == 0x1p-11f + 0x1p-24f);
  // Halfway between two floats, and a little to either side of it: only the product's last bit says which.
  CHECK(fused_multiply_add(1, 1, 0x1p-24f) == 1);
  CHECK(fused_multiply_add(1 + 0x1p-23f, 1, 0x1p-24f) == 1 + 0x1p-22f);
  CHECK(fused_multiply_add(0x1p-40f, 0x1p-40f, 1) == 1);
  CHECK(fused_multiply_add(0x1p-12f, 0x1p-12f, 1) == 1);
  CHECK(fused_multiply_add(0x1p-12f + 0x1p-35f, 0x1p-12f, 1) == 1 + 0x1p-23f);
  CHECK(fused_multiply_add(0x1p-12f - 0x1p-36f, 0x1p-12f, 1) == 1);
  CHECK(fused_multiply_add(0x1p-12f + 0x1p-35f, -0x1p-12f, -1) == -1 - 0x1p-23f);
  // 2^-70 less than halfway between two floats: rounded to a double first, it would be halfway.
  CHECK(fused_multiply_add(0x1p-12f + 0x1p-35f, 0x1p-12f - 0x1p-35f, 1 + 0x1p-23f) == 1 + 0x1p-23f);
  CHECK(std::isinf(fused_multiply_add(0x1p127f, 2, 1)));
  CHECK(std::isnan(fused_multiply_add(NAN, 1, 1)));
}

TEST_CASE("the rest of a product of doubles is exact") {
  std::mt19937_64 random(1);
  for (int i = 0; i < 10000; ++i) {
    const auto a = static_cast<int64_t>(random() >> 11), b = static_cast<int64_t>(random() >> 11);  // 53 bits
    const double product = static_cast<double>(a) * static_cast<double>(b);
    const double rest = product_rest(static_cast<double>(a), static_cast<double>(b));
    // Modulo 2^64, where the product of integers is exact: a multiple of 2^53 and what is missing.
    const uint64_t rounded = static_cast<uint64_t>(std::fmod(product, 0x1p64));
    CHECK(rounded + static_cast<uint64_t>(static_cast<int64_t>(rest)) ==
          static_cast<uint64_t>(a) * static_cast<uint64_t>(b));
  }
}
