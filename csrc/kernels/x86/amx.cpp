// The table of the AMX kernels. Compiled for the baseline, as table.cpp is; on Windows left out with its
// kernels.
#include "kernels/x86/amx.h"

#include "kernels/x86/avx512vnni.h"

namespace allmem::amx {

const Kernels& kernels() {
  static const Kernels kTable = [] {
    Kernels table = avx512vnni::kernels();
    table.name = "amx";
    table.linear_q8 = linear_q8;
    table.memory_scratch = memory_scratch;
    table.memory_accumulate_fast = memory_accumulate_fast;
    return table;
  }();
  return kTable;
}

}  // namespace allmem::amx
