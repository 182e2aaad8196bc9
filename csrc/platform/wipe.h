// Overwriting what must not be found again.
#pragma once

#include <cstddef>
#include <span>

namespace allmem {

// Writes zeros that the compiler may not leave out, though nobody reads them.
inline void wipe_memory(std::span<std::byte> bytes) {
  volatile std::byte* data = bytes.data();
  for (size_t i = 0; i < bytes.size(); ++i) data[i] = std::byte{0};
}

}  // namespace allmem
