// What the functions composed of kernels share: rows kept in 8 bits.
#pragma once

#include <algorithm>

#include "kernels/scratch.h"

namespace allmem {

// n rounded up to whole groups of kQ8Group.
constexpr size_t whole_groups(size_t n) { return (n + kQ8Group - 1) / kQ8Group * kQ8Group; }

// Tokens that are computed together: up to 256 rows of `group` each, so that what they need stays in the
// second-level cache.
inline size_t tokens_at_once(size_t T, size_t group) { return std::min(T, std::max<size_t>(1, 256 / group)); }

inline constexpr int kQ8Zero = 128;  // the code of 0 in a matrix of 8 bits

// A row of `cols` floats, whole groups, as a row of a matrix of 8 bits. sums: room for cols/kQ8Group.
inline void store_row(const Kernels& kernels, const float* row, size_t cols, uint8_t* codes, float* scales,
                      int32_t* sums) {
  kernels.quantise(row, 1, cols, 8, {reinterpret_cast<int8_t*>(codes), scales, sums});
  for (size_t k = 0; k < cols; ++k) codes[k] ^= kQ8Zero;  // as good as adding it
}

}  // namespace allmem
