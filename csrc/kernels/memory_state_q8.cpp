// The state of the test-time memory in 8 bits.
#include "kernels/memory_state_q8.h"

#include <algorithm>

#include "kernels/rows_q8.h"
#include "kernels/settle_memory.h"

namespace allmem {

namespace {

constexpr size_t kMatrices = 3;

}  // namespace

size_t MemoryStateQ8::scratch_floats(size_t dim, size_t hidden) {
  return 3 * kMatrices * whole_groups(dim * hidden);
}

size_t MemoryStateQ8::shared_floats(const Kernels& kernels, size_t dim, size_t hidden) {
  return std::max(kernels.memory_scratch(dim, hidden), ValuesQ8::scratch_floats());
}

MemoryStateQ8::MemoryStateQ8(const Kernels& kernels, size_t dim, size_t hidden,
                             const std::array<Matrix, 3>& matrices, float* row_scales, float* scratch,
                             float* shared)
    : kernels_(kernels), matrices_(matrices), shared_(shared) {
  Scratch parts(scratch);
  for (auto* kind : {&w_, &s_, &g_})
    for (float*& matrix : *kind) matrix = parts.floats(whole_groups(dim * hidden));
  head_ = {.dim = dim,
           .hidden = hidden,
           .w_gate = w_[0],
           .w_up = w_[1],
           .w_down = w_[2],
           .s_gate = s_[0],
           .s_up = s_[1],
           .s_down = s_[2],
           .g_gate = g_[0],
           .g_up = g_[1],
           .g_down = g_[2],
           .r_gate = row_scales,
           .r_up = row_scales + hidden,
           .r_down = row_scales + 2 * hidden};
}

const MemoryHead& MemoryStateQ8::weights() {
  if (!has_weights_) {
    for (size_t i = 0; i < kMatrices; ++i)
      values(matrices_[i].weights).load(kernels_, matrices_[i].initial, w_[i]);
    has_weights_ = true;
  }
  return head_;
}

void MemoryStateQ8::open_gradient() {
  if (has_gradient_) return;
  for (size_t i = 0; i < kMatrices; ++i) values(matrices_[i].gradient).load(kernels_, nullptr, g_[i]);
  has_gradient_ = true;
}

void MemoryStateQ8::keep_gradient() {
  for (size_t i = 0; i < kMatrices; ++i)
    values(matrices_[i].gradient).store(kernels_, g_[i], nullptr, shared_);
  has_gradient_ = false;
}

void MemoryStateQ8::learn(const float* k, size_t k_stride, const float* v, size_t v_stride, const float* eta,
                          size_t eta_stride, size_t n) {
  if (has_gradient_) keep_gradient();  // rounds it, as the end of a call would
  open_gradient();
  kernels_.memory_accumulate_fast(weights(), k, k_stride, v, v_stride, eta, eta_stride, n, shared_);
}

// The weights as they are from now on: rounded.
void MemoryStateQ8::keep_weights_and_momentum() {
  for (size_t i = 0; i < kMatrices; ++i) {
    const Matrix& matrix = matrices_[i];
    values(matrix.momentum).store(kernels_, s_[i], nullptr, shared_);
    values(matrix.weights).store(kernels_, w_[i], matrix.initial, shared_);
    values(matrix.weights).load(kernels_, matrix.initial, w_[i]);
    values(matrix.gradient).clear();
  }
  has_gradient_ = false;
}

void MemoryStateQ8::open_all() {
  weights();
  open_gradient();
  for (size_t i = 0; i < kMatrices; ++i) values(matrices_[i].momentum).load(kernels_, nullptr, s_[i]);
}

void MemoryStateQ8::write(float beta_mean) {
  open_all();
  kernels_.memory_write(head_, beta_mean);
  keep_weights_and_momentum();
}

bool MemoryStateQ8::settle() {
  open_all();
  const bool has_changed = settle_memory(kernels_, head_);
  if (has_changed) keep_weights_and_momentum();
  return has_changed;
}

void MemoryStateQ8::close() {
  if (has_gradient_) keep_gradient();
}

}  // namespace allmem
