// The kernels that gain from AVX-512 and its 8-bit dot products (VNNI); all others are AVX2's.
//
// As for AVX2, the files named *_avx512vnni.cpp include no STL header and call no inline library function.
#pragma once

#include "kernels/kernels.h"

namespace allmem::avx512vnni {

// y[m, n] += Σ_k x[m, k] w[n, k], and y[m, n] += Σ_k p[m * p_row + k * p_col] v[k, n].
void gemm_nt(const float* x, size_t x_stride, const float* w, size_t w_stride, float* y, size_t y_stride,
             size_t M, size_t N, size_t K);
void gemm_nn(const float* p, size_t p_row, size_t p_col, const float* v, size_t v_stride, float* y,
             size_t y_stride, size_t M, size_t N, size_t K);

void linear_f32(const float* x, const float* w, const float* bias, float* y, size_t T, size_t K, size_t N,
                size_t n_begin, size_t n_end);
void quantise(const float* x, size_t T, size_t K, unsigned bits, const Q8Rows& q);
void linear_q8(const Q8Rows& x, const NBitsMatrix& w, const Onto& onto, float* y, size_t T, size_t n_begin,
               size_t n_end);

void silu_mul(const float* gate, const float* up, float* y, size_t n);

void softmax_step(float* scores, const float* scales, const SeenKeys* seen, size_t rows, float* max,
                  float* total, float* shrink);

void memory_read(const MemoryHead& head, const float* q, size_t q_stride, float* y, size_t y_stride, size_t n,
                 float* scratch);
void memory_accumulate(const MemoryHead& head, const float* k, size_t k_stride, const float* v,
                       size_t v_stride, const float* eta, size_t eta_stride, size_t n, float* scratch);

const Kernels& kernels();

}  // namespace allmem::avx512vnni
