// The kernels written with AVX2 and FMA intrinsics, and what they share (contracts in kernels.h).
//
// Files named *_avx2.cpp are compiled with AVX2 enabled. They include no STL header and call no inline
// library function: the linker keeps one copy of an inline function, and a copy with AVX2 in it would kill
// other machines.
#pragma once

#include "kernels/gemm.h"
#include "kernels/kernels.h"

namespace allmem::avx2 {

GemmNt gemm_nt;
GemmNt gemm_nt_dots;  // always in the same order, however many rows x has
GemmNn gemm_nn;

LinearF32 linear_f32;
LinearNBits linear_nbits;
Quantise quantise;
LinearQ8 linear_q8;
LinearAffine linear_affine;

// All others are those of kernels/simd.
extern const Kernels kTable;
const Kernels& kernels();

}  // namespace allmem::avx2
