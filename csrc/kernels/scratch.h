// Dividing scratch memory.
#pragma once

#include "kernels/kernels.h"

namespace allmem {

// Hands out a piece of scratch memory part by part; without memory, only counts. Always inlined: no copy of
// it may have a file's special instructions in it.
class Scratch {
 public:
  [[gnu::always_inline]] explicit Scratch(float* memory) : memory_(memory) {}
  [[gnu::always_inline]] size_t used() const { return used_; }

  [[gnu::always_inline]] float* floats(size_t n) {
    float* part = memory_ == nullptr ? nullptr : memory_ + used_;
    used_ += n;
    return part;
  }
  // For `rows` rows of `cols` columns.
  [[gnu::always_inline]] Q8Rows q8(size_t rows, size_t cols) {
    auto* codes = reinterpret_cast<int8_t*>(floats(rows * cols / sizeof(float)));
    float* scales = floats(rows * cols / kQ8Group);
    return {codes, scales, reinterpret_cast<int32_t*>(floats(rows * cols / kQ8Group))};
  }

 private:
  float* memory_;
  size_t used_ = 0;
};

}  // namespace allmem
