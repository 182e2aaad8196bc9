// IEEE binary16, for code that has no instruction for it.
#pragma once

#include <bit>
#include <cstdint>

namespace allmem {

// The value of `half`, exactly; a NaN stays one.
inline float from_half(uint16_t half) {
  const uint32_t sign = (half & 0x8000u) << 16, size = half & 0x7FFFu;
  uint32_t bits;
  if (size < 0x400) {  // subnormal: a multiple of 2^-24
    bits = std::bit_cast<uint32_t>(static_cast<float>(size) * 0x1p-24f);
  } else {  // the exponent's bias is 127 instead of 15; infinity and NaN have the largest of either format
    bits = (size << 13) + (size < 0x7C00 ? 112u << 23 : 224u << 23);
  }
  return std::bit_cast<float>(sign | bits);
}

}  // namespace allmem
