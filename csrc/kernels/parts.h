// Dividing a piece of scratch memory.
#pragma once

#include "kernels/kernels.h"

namespace allmem {

// Hands out a piece of scratch memory part by part; without memory, only counts.
class Parts {
 public:
  explicit Parts(float* memory) : memory_(memory) {}
  size_t used() const { return used_; }

  float* floats(size_t n) {
    float* part = memory_ == nullptr ? nullptr : memory_ + used_;
    used_ += n;
    return part;
  }
  // For `rows` rows of `cols` columns.
  Q8Rows q8(size_t rows, size_t cols) {
    auto* codes = reinterpret_cast<int8_t*>(floats(rows * cols / sizeof(float)));
    float* scales = floats(rows * cols / kQ8Group);
    return {codes, scales, reinterpret_cast<int32_t*>(floats(rows * cols / kQ8Group))};
  }

 private:
  float* memory_;
  size_t used_ = 0;
};

// n rounded up to whole groups of kQ8Group.
constexpr size_t whole_groups(size_t n) { return (n + kQ8Group - 1) / kQ8Group * kQ8Group; }

}  // namespace allmem
