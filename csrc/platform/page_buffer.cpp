// Anonymous mappings, where the system has them.
#include "platform/page_buffer.h"

#include <new>

#include "platform/large_pages.h"
#include "platform/zeros.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(memory_sanitizer)
#define ALLMEM_WATCHED
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define ALLMEM_WATCHED
#endif
#if (defined(__unix__) || defined(__APPLE__)) && !defined(ALLMEM_WATCHED)
#define ALLMEM_MAPS
#include <sys/mman.h>
#endif

namespace allmem {

PageBuffer::PageBuffer(size_t size) : size_(size) {
  if (size == 0) return;
#if defined(ALLMEM_MAPS)
  void* const memory = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  data_ = static_cast<std::byte*>(memory);
  prefer_large_pages(data_, size);
#else
  block_ = AlignedBuffer(size);
  data_ = block_.data();
#endif
}

void PageBuffer::clear() {
#if defined(ALLMEM_MAPS) && defined(__linux__)  // elsewhere the advice does not make them zeros
  if (data_ != nullptr) ::madvise(data_, size_, MADV_DONTNEED);
#endif
  make_zeros({data_, size_});  // what was not given back: locked pages, an emulator that ignores advice
}

PageBuffer::~PageBuffer() {
#if defined(ALLMEM_MAPS)
  if (data_ != nullptr) ::munmap(data_, size_);
#endif
}

}  // namespace allmem
