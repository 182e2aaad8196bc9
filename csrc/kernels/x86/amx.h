// The kernels that gain from AMX, matrix products of bytes and of bfloat16 in tile registers; all others are
// AVX-512 VNNI's.
#pragma once

#include "kernels/kernels.h"

namespace allmem::amx {

LinearQ8 linear_q8;
MemoryScratch memory_scratch;
MemoryAccumulate memory_accumulate_fast;

const Kernels& kernels();

}  // namespace allmem::amx
