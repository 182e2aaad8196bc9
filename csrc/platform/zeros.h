// Memory of zeros, of which a page that nobody has written to stays the system's.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace allmem {

inline bool are_zeros(std::span<const std::byte> bytes) {
  uint64_t any = 0;
  size_t i = 0;
  for (; i + sizeof any <= bytes.size(); i += sizeof any) {
    uint64_t word;
    std::memcpy(&word, bytes.data() + i, sizeof word);
    any |= word;
  }
  for (; i < bytes.size(); ++i) any |= static_cast<uint64_t>(bytes[i]);
  return any == 0;
}

// Writes zeros where there are none yet.
inline void make_zeros(std::span<std::byte> bytes) {
  constexpr size_t kBlock = 64;  // a cache line
  while (!bytes.empty()) {
    const auto block = bytes.first(std::min(kBlock, bytes.size()));
    if (!are_zeros(block)) std::memset(block.data(), 0, block.size());
    bytes = bytes.subspan(block.size());
  }
}

}  // namespace allmem
