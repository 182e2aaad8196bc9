// The test-time memory with AVX2.
#include "kernels/x86/avx2.h"
#include "kernels/x86/memory_ymm.h"

namespace allmem::avx2 {

namespace {

struct Gemm {
  static constexpr auto nt = gemm_nt;
  static constexpr auto nn = gemm_nn;
};

}  // namespace

void memory_row_scales(const MemoryHead& head, const float* norm0_gate, const float* norm0_up,
                       const float* norm0_down) {
  Memory<Gemm>::row_scales_of(head, norm0_gate, norm0_up, norm0_down);
}

size_t memory_scratch(size_t dim, size_t hidden) { return Memory<Gemm>::scratch(dim, hidden); }

void memory_read(const MemoryHead& head, const float* q, size_t q_stride, float* y, size_t y_stride, size_t n,
                 float* scratch) {
  Memory<Gemm>::read(head, q, q_stride, y, y_stride, n, scratch);
}

void memory_accumulate(const MemoryHead& head, const float* k, size_t k_stride, const float* v,
                       size_t v_stride, const float* eta, size_t eta_stride, size_t n, float* scratch) {
  Memory<Gemm>::accumulate(head, k, k_stride, v, v_stride, eta, eta_stride, n, scratch);
}

void memory_write(const MemoryHead& head, float beta_mean) { Memory<Gemm>::write(head, beta_mean); }

}  // namespace allmem::avx2
