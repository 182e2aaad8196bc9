// Floats kept in 8 bits: codes in groups of kQ8Group, and a scale for each group, as Kernels::quantise makes
// them. They may be kept as their difference from a base that is known, and lies elsewhere in float32.
//
// Composed of kernels of the table that give the same bits everywhere.
#pragma once

#include <cstddef>

#include "kernels/kernels.h"

namespace allmem {

// n values, viewed where they lie: codes [n filled up with zeros to whole groups], then the groups' scales.
class ValuesQ8 {
 public:
  static size_t bytes(size_t n);
  ValuesQ8(std::byte* memory, size_t n);  // `memory`: bytes(n), aligned to 4

  // x [n] = base + what is kept; base [n], null for zeros.
  void load(const Kernels& kernels, const float* base, float* x) const;
  // Keeps x [n] - base. scratch: scratch_floats()
  void store(const Kernels& kernels, const float* x, const float* base, float* scratch) const;
  static size_t scratch_floats();
  void clear();  // zeros, or all as the base is

 private:
  size_t n_;
  int8_t* codes_;
  float* scales_;
};

}  // namespace allmem
