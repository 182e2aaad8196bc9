// Looks for bytes in everything that this process can write to: heap, stacks, globals.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <set>
#include <span>
#include <unordered_map>
#include <vector>

namespace allmem::test {

// All memory that this process can read and write.
std::vector<std::span<const std::byte>> writable_memory();

// What to look for, in pieces of 32 bytes. They are kept masked, so that the search does not find itself.
class Needles {
 public:
  static constexpr size_t kSize = 32;

  // Every 32 bytes of `bytes`, except for pieces with little in them: those are everywhere.
  void add(std::span<const std::byte> bytes) {
    for (size_t begin = 0; begin + kSize <= bytes.size(); begin += kSize) {
      std::array<std::byte, kSize> masked;
      for (size_t i = 0; i < kSize; ++i) masked[i] = bytes[begin + i] ^ kMask;
      std::array<bool, 256> seen{};
      for (const std::byte b : masked) seen[static_cast<size_t>(b)] = true;
      if (std::ranges::count(seen, true) < 8) continue;
      needles_.emplace(start_of(masked.data()), masked);
    }
  }

  // Takes back what lies in `bytes` at any multiple of 4: it is not secret.
  void remove(std::span<const std::byte> bytes) {
    std::set<std::array<std::byte, kSize>> known;
    search(bytes, [&](const auto& needle) { known.insert(needle); });
    std::erase_if(needles_, [&](const auto& entry) { return known.contains(entry.second); });
  }

  size_t size() const { return needles_.size(); }

  // How many places in writable memory, at multiples of 4 bytes, hold one of them.
  size_t found() const {
    size_t count = 0;
    for (const auto& region : writable_memory()) search(region, [&](const auto&) { ++count; });
    return count;
  }

 private:
  static constexpr std::byte kMask{0xA5};

  static uint64_t start_of(const std::byte* bytes) {
    uint64_t start = 0;
    std::memcpy(&start, bytes, sizeof start);
    return start;
  }

  template <class Found>
  void search(std::span<const std::byte> bytes, const Found& found) const {
    constexpr uint64_t kMasks = 0xA5A5A5A5A5A5A5A5;
    for (size_t i = 0; i + kSize <= bytes.size(); i += 4) {
      const auto [begin, end] = needles_.equal_range(start_of(bytes.data() + i) ^ kMasks);
      for (auto it = begin; it != end; ++it) {
        size_t same = 0;
        while (same < kSize && (bytes[i + same] ^ kMask) == it->second[same]) ++same;
        if (same == kSize) found(it->second);
      }
    }
  }

  std::unordered_multimap<uint64_t, std::array<std::byte, kSize>> needles_;  // by their first bytes
};

}  // namespace allmem::test
