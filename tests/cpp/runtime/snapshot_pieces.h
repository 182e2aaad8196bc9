// Snapshots by hand, written from docs/memory-files.md, apart from the library's own code for them.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

namespace allmem::test::snapshots {

struct Bytes {
  std::vector<std::byte> data;
  template <class T>
  Bytes& number(T value) {
    const auto bytes = std::as_bytes(std::span(&value, 1));
    data.insert(data.end(), bytes.begin(), bytes.end());
    return *this;
  }
  Bytes& text(std::string_view value) {
    number(uint64_t{value.size()});
    const auto bytes = std::as_bytes(std::span(value));
    data.insert(data.end(), bytes.begin(), bytes.end());
    return *this;
  }
};

struct Pieces {
  std::vector<std::byte> head, note, layout, decoding, state;

  explicit Pieces(std::span<const std::byte> snapshot) {
    const auto number = [&](size_t at) {
      uint64_t value = 0;
      std::memcpy(&value, snapshot.data() + at, sizeof value);
      return value;
    };
    size_t place = 0;
    const auto take = [&](size_t size) {
      const auto piece = snapshot.subspan(place, size);
      place += size;
      return std::vector<std::byte>(piece.begin(), piece.end());
    };
    head = take(72);
    note = take(number(32));
    layout = take(number(40));
    decoding = take(number(48));
    state = take(number(56));
    CHECK(place == snapshot.size());
  }

  template <class T>
  void set(size_t offset, T value) {
    std::memcpy(head.data() + offset, &value, sizeof value);
  }
  void set_lengths() {
    set(32, uint64_t{note.size()});
    set(40, uint64_t{layout.size()});
    set(48, uint64_t{decoding.size()});
    set(56, uint64_t{state.size()});
  }

  std::vector<std::byte> join() {
    set(64, uint64_t{0});
    uint64_t value = 0xCBF29CE484222325;
    std::vector<std::byte> all;
    for (const auto* piece : {&head, &note, &layout, &decoding, &state}) {
      value ^= piece->size();
      for (size_t i = 0; i < piece->size(); i += 8) {
        uint64_t word = 0;
        std::memcpy(&word, piece->data() + i, std::min<size_t>(8, piece->size() - i));
        value = std::rotl((value ^ word) * 0x100000001B3, 31);
      }
    }
    set(64, value);
    for (const auto* piece : {&head, &note, &layout, &decoding, &state}) {
      all.insert(all.end(), piece->begin(), piece->end());
    }
    return all;
  }
};

// The state as it lies in memory.
inline std::vector<std::byte> unpacked(std::span<const std::byte> packed, size_t bytes) {
  std::vector<std::byte> state(bytes);
  size_t place = (bytes + 4095) / 4096 * 8;
  for (size_t block = 0; block < bytes / 64; ++block) {
    if ((packed[block / 8] >> (block % 8) & std::byte{1}) == std::byte{0}) continue;
    std::copy_n(packed.begin() + static_cast<ptrdiff_t>(place), 64,
                state.begin() + static_cast<ptrdiff_t>(block * 64));
    place += 64;
  }
  CHECK(place == packed.size());
  return state;
}

}  // namespace allmem::test::snapshots
