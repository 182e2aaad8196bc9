// What the test-time memory learns from a block of tokens, with AMX.
#include "kernels/x86/amx.h"
#include "kernels/x86/avx512vnni.h"
#include "kernels/x86/memory_ymm.h"

namespace allmem::amx {

namespace {

constexpr size_t kFewTokens = 8;  // below it tiles stay half empty

struct Gemm {
  static constexpr auto nt = gemm_nt;
  static constexpr auto nn = gemm_nn;
};

}  // namespace

void memory_accumulate_fast(const MemoryHead& head, const float* k, size_t k_stride, const float* v,
                            size_t v_stride, const float* eta, size_t eta_stride, size_t n, float* scratch) {
  if (n < kFewTokens)
    return avx512vnni::memory_accumulate(head, k, k_stride, v, v_stride, eta, eta_stride, n, scratch);
  avx2::Memory<Gemm>::accumulate(head, k, k_stride, v, v_stride, eta, eta_stride, n, scratch);
}

}  // namespace allmem::amx
