// Which instruction set the kernels of this process use.
#pragma once

namespace allmem {

// "ref", "avx2", ...: the value that ALLMEM_ISA takes. Throws Error (kInvalidArgument) when ALLMEM_ISA names
// one that this machine cannot run.
const char* isa_name();

}  // namespace allmem
