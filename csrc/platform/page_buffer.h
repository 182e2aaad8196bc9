// Zeroed memory of its own pages, which goes back to the system when it is freed: what the allocator would
// keep, as it does blocks of less than some megabytes, a process that frees a hundred sessions would go on
// holding.
#pragma once

#include <cstddef>

#include "platform/aligned_buffer.h"

namespace allmem {

class PageBuffer {
 public:
  explicit PageBuffer(size_t size);  // throws std::bad_alloc
  ~PageBuffer();
  PageBuffer(const PageBuffer&) = delete;
  PageBuffer& operator=(const PageBuffer&) = delete;

  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  size_t size() const { return size_; }
  void clear();  // zeros again; pages go back to the system where it takes them, and no other is touched

 private:
  AlignedBuffer block_;  // where there is no mmap, and under AddressSanitizer, which watches its bounds
  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace allmem
