// Reading the test-time memory from a copy of its fast weights in 8 bits: a quarter of the bytes, and integer
// products. The weights that learn stay in float32; they change at the end of a chunk, and the copy is then
// remade.
//
// Composed of kernels of the table, so that there is one for all instruction sets.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/kernels.h"

namespace allmem {

// The copy of one KV head. D and h are filled up with zeros to whole groups, Dp and hp.
class MemoryQ8 {
 public:
  static uint64_t bytes(size_t dim, size_t hidden);        // maybe more than there are addresses
  MemoryQ8(size_t dim, size_t hidden, std::byte* memory);  // `memory`: bytes(), aligned to 4

  // Copies the fast weights of `head`. Both calls need scratch_floats(dim, hidden, T, group).
  void remake(const Kernels& kernels, const MemoryHead& head, float* scratch) const;

  // M_W of T tokens with `group` query heads each: row (t, j) lies at q + t * stride + j * D, its result
  // likewise in y.
  void read(const Kernels& kernels, const float* q, float* y, size_t T, size_t group, size_t stride,
            float* scratch) const;

  static size_t scratch_floats(size_t dim, size_t hidden, size_t T, size_t group);

 private:
  size_t dim_, hidden_;
  NBitsMatrix gate_, up_, down_;  // [hp, Dp], [hp, Dp], [D, hp]
};

}  // namespace allmem
