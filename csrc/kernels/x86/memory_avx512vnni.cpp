// The test-time memory with AVX-512.
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

}  // namespace allmem::avx512vnni
