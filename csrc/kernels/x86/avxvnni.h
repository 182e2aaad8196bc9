// The kernels that gain from AVX-VNNI; all others are AVX2's.
#pragma once

#include "kernels/kernels.h"

namespace allmem::avxvnni {

LinearQ8 linear_q8;
LinearAffine linear_affine;

const Kernels& kernels();

}  // namespace allmem::avxvnni
