// The kernels that gain from AVX-512 and its 8-bit dot products (VNNI); all others are AVX2's.
//
// As for AVX2, the files named *_avx512vnni.cpp include no STL header and call no inline library function.
#pragma once

#include "kernels/gemm.h"
#include "kernels/kernels.h"

namespace allmem::avx512vnni {

GemmNt gemm_nt;
GemmNn gemm_nn;

LinearF32 linear_f32;
Quantise quantise;
LinearQ8 linear_q8;
LinearAffine linear_affine;
Binary silu_mul;
SoftmaxStep softmax_step;
MemoryRead memory_read;
MemoryAccumulate memory_accumulate;
LinearMemoryWrite linear_memory_write;

const Kernels& kernels();

}  // namespace allmem::avx512vnni
