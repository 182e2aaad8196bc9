// The kernels written with AVX2 and FMA intrinsics, and what they share (contracts in kernels.h).
//
// Files named *_avx2.cpp are compiled with AVX2 enabled. They include no STL header and call no inline
// library function: the linker keeps one copy of an inline function, and a copy with AVX2 in it would kill
// other machines.
#pragma once

#include "kernels/kernels.h"

namespace allmem::avx2 {

// y[m, n] += Σ_k x[m, k] w[n, k] for m < M, n < N, k < K; each row `stride` floats after the one before.
void gemm_nt(const float* x, size_t x_stride, const float* w, size_t w_stride, float* y, size_t y_stride,
             size_t M, size_t N, size_t K);
// The same, always in the same order, however many rows x has.
void gemm_nt_dots(const float* x, size_t x_stride, const float* w, size_t w_stride, float* y, size_t y_stride,
                  size_t M, size_t N, size_t K);
// y[m, n] += Σ_k p[m * p_row + k * p_col] v[k, n]: the product with P (p_col = 1) or, by its strides, with
// Pᵀ.
void gemm_nn(const float* p, size_t p_row, size_t p_col, const float* v, size_t v_stride, float* y,
             size_t y_stride, size_t M, size_t N, size_t K);

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

// The table of all of these.
const Kernels& kernels();

}  // namespace allmem::avx2
