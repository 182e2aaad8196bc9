// The kernels written with NEON intrinsics, and what they share (contracts in kernels.h).
//
// NEON is part of the arm64 baseline, so these files need no compiler flags and run on every arm64 machine.
#pragma once

#include "kernels/gemm.h"
#include "kernels/kernels.h"

namespace allmem::neon {

GemmNt gemm_nt;
GemmNn gemm_nn;

LinearF32 linear_f32;
LinearNBits linear_nbits;
Quantise quantise;
LinearQ8 linear_q8;
LinearAffine linear_affine;

// All others are those of kernels/simd.
extern const Kernels kTable;
const Kernels& kernels();

}  // namespace allmem::neon
