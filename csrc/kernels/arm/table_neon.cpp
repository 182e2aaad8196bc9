// The table of the NEON kernels.
#include "kernels/arm/neon.h"
#include "kernels/simd/table.h"

namespace allmem::neon {

namespace {

struct Gemm {
  static constexpr auto nt = gemm_nt;
  static constexpr auto nn = gemm_nn;
  static constexpr size_t kTokens = 32;
};

}  // namespace

constinit const Kernels kTable =
    simd::table<Gemm>("neon", 0, linear_f32, linear_nbits, quantise, linear_q8, linear_affine);

}  // namespace allmem::neon
