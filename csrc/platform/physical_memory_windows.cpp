// From GlobalMemoryStatusEx.
#include "platform/physical_memory.h"
#include "platform/windows_handle.h"

namespace allmem {

size_t physical_memory() {
  MEMORYSTATUSEX status{};
  status.dwLength = sizeof status;
  return ::GlobalMemoryStatusEx(&status) != 0 ? static_cast<size_t>(status.ullTotalPhys) : 0;
}

}  // namespace allmem
