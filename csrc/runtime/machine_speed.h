// How fast this machine is at what bounds a model: reading memory, and the arithmetic of the kernels.
#pragma once

#include <cstddef>

namespace allmem {

// Per second, all threads together; the best of several tries, as a bound should be.
struct MachineSpeed {
  double read_bytes;           // from a block of memory of the given size
  double integer_operations;   // 8-bit products in linear_q8; a multiply and an add are two
  double floating_operations;  // on float32: in linear_f32 if `exact`, else in what the memory learns with
};

// Takes about a second. `bytes`: what a token touches, since smaller blocks may fit into a cache. The
// arithmetic is measured on matrices that do fit. Throws Error (kInvalidArgument) for no number of threads,
// and std::bad_alloc.
MachineSpeed measure_machine(int threads, size_t bytes, bool exact);

}  // namespace allmem
