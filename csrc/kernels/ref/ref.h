// The scalar kernels: the definition of every entry of the table (contracts in kernels.h).
//
// Sums run in double: the definition's own rounding is then negligible, and a fast kernel's tolerance
// follows from that kernel alone. Everything stored is float32.
#pragma once

#include "kernels/kernels.h"

namespace allmem::ref {

void linear_f32(const float* x, const float* w, const float* bias, float* y, size_t T, size_t K, size_t N,
                size_t n_begin, size_t n_end);
void linear_nbits(const float* x, const NBitsMatrix& w, const float* bias, float* y, size_t T, size_t n_begin,
                  size_t n_end);
void quantise(const float* x, size_t T, size_t K, unsigned bits, const Q8Rows& q);
void linear_q8(const Q8Rows& x, const NBitsMatrix& w, const Onto& onto, float* y, size_t T, size_t n_begin,
               size_t n_end);

void rms_norm(const float* x, const float* weight, float* y, size_t rows, size_t cols, float epsilon);

void add(const float* a, const float* b, float* y, size_t n);
void mul(const float* a, const float* b, float* y, size_t n);
void sigmoid(const float* x, float* y, size_t n);
void silu(const float* x, float* y, size_t n);
void softplus(const float* x, float* y, size_t n);
void silu_mul(const float* gate, const float* up, float* y, size_t n);

void rotate(const float* x, const float* cos, const float* sin, float* y, size_t T, size_t heads, size_t D);

size_t attention_scratch(const AttentionArgs& args);
void attention(const AttentionArgs& args, size_t kv_begin, size_t kv_end, float* scratch);
void softmax_step(float* scores, const float* scales, const SeenKeys* seen, size_t rows, float* max,
                  float* total, float* shrink);

void memory_row_scales(const MemoryHead& head, const float* norm0_gate, const float* norm0_up,
                       const float* norm0_down);
size_t memory_scratch(size_t dim, size_t hidden);
void memory_read(const MemoryHead& head, const float* q, size_t q_stride, float* y, size_t y_stride, size_t n,
                 float* scratch);
void memory_accumulate(const MemoryHead& head, const float* k, size_t k_stride, const float* v,
                       size_t v_stride, const float* eta, size_t eta_stride, size_t n, float* scratch);
void memory_write(const MemoryHead& head, float beta_mean);

}  // namespace allmem::ref
