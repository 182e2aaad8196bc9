// The kernels that gain from AMX, matrix products of bytes and of bfloat16 in tile registers; all others are
// AVX-512 VNNI's.
#pragma once

#include "kernels/kernels.h"

namespace allmem::amx {

void linear_q8(const Q8Rows& x, const NBitsMatrix& w, const float* bias, float* y, size_t T, size_t n_begin,
               size_t n_end);

// As in avx512vnni.h, with products exact to 2^-16.
void gemm_nt(const float* x, size_t x_stride, const float* w, size_t w_stride, float* y, size_t y_stride,
             size_t M, size_t N, size_t K);
void gemm_nn(const float* p, size_t p_row, size_t p_col, const float* v, size_t v_stride, float* y,
             size_t y_stride, size_t M, size_t N, size_t K);

void memory_accumulate_fast(const MemoryHead& head, const float* k, size_t k_stride, const float* v,
                            size_t v_stride, const float* eta, size_t eta_stride, size_t n, float* scratch);

const Kernels& kernels();

}  // namespace allmem::amx
