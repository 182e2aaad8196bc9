// The kernels that gain from 8-bit dot products (FEAT_DotProd: Cortex-A55, A76 and later, Apple's since the
// A13); all others are NEON's.
//
// Files named *_dotprod.cpp and *_i8mm.cpp are compiled with these instructions enabled. They include no STL
// header and call no inline library function: the linker keeps one copy of an inline function, and a copy
// with these instructions in it would kill other machines.
#pragma once

#include "kernels/kernels.h"

namespace allmem::dotprod {

LinearQ8 linear_q8;
LinearAffine linear_affine;

const Kernels& kernels();

}  // namespace allmem::dotprod
