// Both kinds of memory with AVX-512.
#include "kernels/simd/linear_memory.h"
#include "kernels/simd/memory.h"
#include "kernels/x86/avx512vnni.h"

namespace allmem::avx512vnni {

namespace {

struct Gemm {
  static constexpr auto nt = gemm_nt;
  static constexpr auto nn = gemm_nn;
  static constexpr size_t kTokens = 64;
};

}  // namespace

void memory_read(const MemoryHead& head, const float* q, size_t q_stride, float* y, size_t y_stride, size_t n,
                 float* scratch) {
  simd::memory_read<Gemm>(head, q, q_stride, y, y_stride, n, scratch);
}

void memory_accumulate(const MemoryHead& head, const float* k, size_t k_stride, const float* v,
                       size_t v_stride, const float* eta, size_t eta_stride, size_t n, float* scratch) {
  simd::memory_accumulate<Gemm>(head, k, k_stride, v, v_stride, eta, eta_stride, n, scratch);
}

void linear_memory_write(float* state, const float* k, const float* v, float eta, float beta, bool delta,
                         size_t dim, float* scratch) {
  simd::linear_memory_write<Gemm>(state, k, v, eta, beta, delta, dim, scratch);
}

}  // namespace allmem::avx512vnni
