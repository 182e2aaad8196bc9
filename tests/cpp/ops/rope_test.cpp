// RoPE angles are as exact at position 10^12 as at position 10.
#include "ops/rope.h"

#include <doctest/doctest.h>

#include <cmath>
#include <initializer_list>

TEST_CASE("cos and sin are within one float32 rounding of the exact angle at any position") {
  for (const uint64_t position : {uint64_t{0}, uint64_t{10}, uint64_t{4096}, uint64_t{10'000'000},
                                  uint64_t{1} << 33, (uint64_t{1} << 40) + 12345}) {
    for (int i = 0; i < 64; ++i) {
      const auto inv_freq = static_cast<float>(std::pow(1e6, -i / 64.0));
      // 64 bits of mantissa hold the product of 24 and 40 bits exactly.
      const long double angle = static_cast<long double>(position) * static_cast<long double>(inv_freq);
      float cosine = 0, sine = 0;
      allmem::ops::rope_angle(position, inv_freq, 1.0f, cosine, sine);
      constexpr double kRounding = 0x1p-24;  // half a unit in the last place of values up to 1
      CHECK(std::fabs(static_cast<double>(std::cos(angle) - static_cast<long double>(cosine))) <= kRounding);
      CHECK(std::fabs(static_cast<double>(std::sin(angle) - static_cast<long double>(sine))) <= kRounding);
    }
  }
}
