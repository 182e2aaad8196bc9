// Numbers, lists and texts as bytes, and back with every size checked: what a snapshot is made of.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <type_traits>

#include "platform/error.h"
#include "platform/wipe.h"

namespace allmem {

static_assert(std::endian::native == std::endian::little, "snapshots hold little-endian numbers as they are");

// What cannot be right in a snapshot. `why` ends the sentence.
[[noreturn]] inline void refuse_snapshot(const std::string& why) {
  throw Error(ErrorCode::kBadSnapshot, "This memory cannot be loaded: " + why + ".");
}

class ByteWriter {
 public:
  template <class T>
  requires std::is_arithmetic_v<T>
  void number(T value) { add(std::as_bytes(std::span(&value, 1))); }

  // The count as 64 bits, then the values.
  template <class T>
  void list(std::span<const T> values) {
    number(uint64_t{values.size()});
    add(std::as_bytes(values));
  }

  void text(std::string_view value) { list(std::span<const char>(value)); }

  const WipedVector<std::byte>& bytes() const { return bytes_; }

 private:
  void add(std::span<const std::byte> bytes) { bytes_.insert(bytes_.end(), bytes.begin(), bytes.end()); }
  WipedVector<std::byte> bytes_;
};

// Every call throws kBadSnapshot when the bytes run out, or hold more than the caller allows.
class ByteReader {
 public:
  explicit ByteReader(std::span<const std::byte> bytes) : left_(bytes) {}

  template <class T>
  requires std::is_arithmetic_v<T> T number() {
    T value;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }

  template <class T>
  WipedVector<T> list(size_t most) {
    const auto wanted = number<uint64_t>();
    if (wanted > most || wanted > left_.size() / sizeof(T)) refuse_snapshot("one of its lists is too long");
    const auto count = static_cast<size_t>(wanted);
    const std::span<const std::byte> bytes = take(count * sizeof(T));
    WipedVector<T> values(count);
    if (count > 0) std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
  }

  WipedString text(size_t most) {
    const WipedVector<char> letters = list<char>(most);
    return {letters.begin(), letters.end()};
  }

  bool at_end() const { return left_.empty(); }

 private:
  std::span<const std::byte> take(size_t count) {
    if (count > left_.size()) refuse_snapshot("one of its parts ends too early");
    const auto bytes = left_.first(count);
    left_ = left_.subspan(count);
    return bytes;
  }
  std::span<const std::byte> left_;
};

}  // namespace allmem
