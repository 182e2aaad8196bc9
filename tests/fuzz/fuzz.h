// What the fuzz targets share: a library error is an answer, anything else is a finding.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "platform/error.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace allmem::fuzz {

// Runs `body`; an Error must be a sentence.
template <class Body>
void expect_error_or_success(Body&& body) {
  try {
    body();
  } catch (const Error& error) {
    const std::string_view text = error.what();
    if (text.empty() || text.back() != '.') std::abort();
  }
}

// Hands out pieces of the input; zeros when it is used up.
class Input {
 public:
  Input(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  bool empty() const { return size_ == 0; }
  uint8_t byte() { return size_ == 0 ? 0 : (--size_, *data_++); }
  template <class T>
  T number() {
    uint64_t value = 0;
    for (size_t i = 0; i < sizeof(T); ++i) value |= uint64_t{byte()} << (8 * i);
    return static_cast<T>(value);
  }
  std::span<const uint8_t> bytes(size_t count) {
    count = count < size_ ? count : size_;
    const std::span<const uint8_t> piece(data_, count);
    data_ += count;
    size_ -= count;
    return piece;
  }

 private:
  const uint8_t* data_;
  size_t size_;
};

}  // namespace allmem::fuzz
