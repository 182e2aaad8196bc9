// Windows: every region of the address space, asked for one after the other.
#include "memory_search.h"
#include "platform/windows_handle.h"

namespace allmem::test {

std::vector<std::span<const std::byte>> writable_memory() {
  std::vector<std::span<const std::byte>> regions;
  MEMORY_BASIC_INFORMATION region;
  const std::byte* place = nullptr;
  for (; ::VirtualQuery(place, &region, sizeof region) != 0; place += region.RegionSize) {
    place = static_cast<const std::byte*>(region.BaseAddress);
    const bool writable = region.Protect == PAGE_READWRITE || region.Protect == PAGE_WRITECOPY ||
                          region.Protect == PAGE_EXECUTE_READWRITE ||
                          region.Protect == PAGE_EXECUTE_WRITECOPY;
    if (region.State == MEM_COMMIT && writable) regions.push_back({place, region.RegionSize});
  }
  return regions;
}

}  // namespace allmem::test
