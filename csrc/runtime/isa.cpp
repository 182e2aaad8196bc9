// The instruction set's name, for callers that may not include the kernels.
#include "runtime/isa.h"

#include "kernels/kernels.h"

namespace allmem {

const char* isa_name() { return best_kernels().name; }

}  // namespace allmem
