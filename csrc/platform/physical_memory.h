// How much memory the machine has.
#pragma once

#include <cstddef>

namespace allmem {

// Bytes; 0 where the system does not tell.
size_t physical_memory();

}  // namespace allmem
