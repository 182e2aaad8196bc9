// The state of the test-time memory in 8 bits: the fast weights as their difference from where the model
// starts them, the momentum, and the gradient of the chunk so far. What learns is float32, in scratch memory,
// for as long as a call goes on.
//
// Rounding is at the same tokens however a stream is split into calls: the gradient between any two blocks
// of kGradientBlock tokens, the rest when a chunk ends.
//
// Composed of kernels of the table, so that there is one for all instruction sets.
#pragma once

#include <array>
#include <cstddef>

#include "kernels/values_q8.h"

namespace allmem {

inline constexpr size_t kGradientBlock = 32;  // tokens whose gradient is added to G at a time

// Of one KV head, during one call.
class MemoryStateQ8 {
 public:
  // W_g, W_u or W_d, with h D values.
  struct Matrix {
    const float* initial;                      // W_0; null for zeros
    std::byte *weights, *momentum, *gradient;  // ValuesQ8 of W - W_0, S and G
  };

  // `row_scales`: r of gate, up and down, [h + h + D]. `scratch`: scratch_floats(dim, hidden), this object's
  // alone. `shared`: for any kernel of the table, free between two calls.
  MemoryStateQ8(const Kernels& kernels, size_t dim, size_t hidden, const std::array<Matrix, 3>& matrices,
                float* row_scales, float* scratch, float* shared);
  static size_t scratch_floats(size_t dim, size_t hidden);
  static size_t shared_floats(const Kernels& kernels, size_t dim, size_t hidden);

  // The fast weights in float32; S and G of it are not to be touched.
  const MemoryHead& weights();
  // G += Σ η ∇_W of at most kGradientBlock tokens, as Kernels::memory_accumulate_fast.
  void learn(const float* k, size_t k_stride, const float* v, size_t v_stride, const float* eta,
             size_t eta_stride, size_t n);
  // The end of a chunk: S = beta_mean S + G, W = r W - S, G = 0.
  void write(float beta_mean);
  // As settle_memory().
  bool settle();
  // Ends the call.
  void close();

 private:
  ValuesQ8 values(std::byte* memory) const { return {memory, head_.dim * head_.hidden}; }
  void open_gradient();
  void open_all();
  void keep_gradient();
  void keep_weights_and_momentum();

  const Kernels& kernels_;
  std::array<Matrix, 3> matrices_;
  MemoryHead head_;  // in `scratch`
  std::array<float*, 3> w_, s_, g_;
  float* shared_;
  bool has_weights_ = false, has_gradient_ = false;  // those in `scratch` are what is kept, or newer
};

}  // namespace allmem
