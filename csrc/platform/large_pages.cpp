// madvise(MADV_HUGEPAGE), on Linux and Android.
#include "platform/large_pages.h"

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
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(memory) + page - 1) / page * page;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(memory) + size) / page * page;
  ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);  // a hint: no harm if it fails
#else
  (void)memory;
  (void)size;
#endif
}

}  // namespace allmem
