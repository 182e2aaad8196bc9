// The table of the AVX2 kernels.
#include "kernels/simd/table.h"
#include "kernels/x86/avx2.h"

namespace allmem::avx2 {

namespace {

struct Gemm {
  static constexpr auto nt = gemm_nt;
  static constexpr auto nn = gemm_nn;
  static constexpr size_t kTokens = 64;
};

}  // namespace

constinit const Kernels kTable =
    simd::table<Gemm>("avx2", cpu::kAvx2, linear_f32, linear_nbits, quantise, linear_q8, linear_affine);

}  // namespace allmem::avx2
