// A block of zeroed memory aligned to a cache line.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <new>

#include "platform/large_pages.h"

namespace allmem {

inline constexpr size_t kAlignment = 64;

// `size` rounded up to the alignment. Throws std::bad_alloc where that overflows.
inline size_t align_up(size_t size) {
  if (size > std::numeric_limits<size_t>::max() - (kAlignment - 1)) throw std::bad_alloc();
  return (size + kAlignment - 1) / kAlignment * kAlignment;
}

class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  explicit AlignedBuffer(size_t size) : size_(size) {
    if (size == 0) return;
    // Over-allocated calloc rather than aligned_alloc: large pages of zeros come from the system untouched.
    if (size > std::numeric_limits<size_t>::max() - kAlignment) throw std::bad_alloc();
    block_.reset(std::calloc(1, size + kAlignment));
    if (!block_) throw std::bad_alloc();
    void* start = block_.get();
    size_t space = size + kAlignment;
    data_ = static_cast<std::byte*>(std::align(kAlignment, size, start, space));
    prefer_large_pages(data_, size);
  }

  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  struct Free {
    void operator()(void* block) const { std::free(block); }
  };
  std::unique_ptr<void, Free> block_;
  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace allmem
