// The kernels that gain from 8-bit matrix products (FEAT_I8MM: Cortex-A510, A710 and X2, Apple's since the
// A15 and M2); all others are those of dotprod.
#pragma once

#include "kernels/kernels.h"

namespace allmem::i8mm {

LinearQ8 linear_q8;
LinearAffine linear_affine;

const Kernels& kernels();

}  // namespace allmem::i8mm
