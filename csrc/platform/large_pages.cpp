// madvise(MADV_HUGEPAGE), on Linux and Android.
#include "platform/large_pages.h"

#include <cstddef>
#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace allmem {

void prefer_large_pages(void* memory, size_t size) {
#if defined(MADV_HUGEPAGE)
  constexpr size_t kWorthwhile = size_t{4} << 20;
  if (size < kWorthwhile) return;
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const size_t before = (page - reinterpret_cast<uintptr_t>(memory) % page) % page;  // the first whole page
  const size_t whole = (size - before) / page * page;
  ::madvise(static_cast<std::byte*>(memory) + before, whole, MADV_HUGEPAGE);  // a hint: no harm if it fails
#else
  (void)memory;
  (void)size;
#endif
}

}  // namespace allmem
