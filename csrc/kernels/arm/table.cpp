// The tables of the 64-bit Arm kernels. Compiled for the baseline: looking them up is safe on any machine.
#include "kernels/arm/dotprod.h"
#include "kernels/arm/i8mm.h"
#include "kernels/arm/neon.h"

namespace allmem::neon {

const Kernels& kernels() { return kTable; }

}  // namespace allmem::neon

namespace allmem::dotprod {

const Kernels& kernels() {
  static const Kernels kTable = [] {
    Kernels table = neon::kernels();
    table.name = "dotprod";
    table.needs = cpu::kDotProduct;
    table.linear_q8 = linear_q8;
    table.linear_affine = linear_affine;
    return table;
  }();
  return kTable;
}

}  // namespace allmem::dotprod

namespace allmem::i8mm {

const Kernels& kernels() {
  static const Kernels kTable = [] {
    Kernels table = dotprod::kernels();
    table.name = "i8mm";
    table.needs = cpu::kDotProduct | cpu::kInt8MatrixProduct;
    table.linear_q8 = linear_q8;
    table.linear_affine = linear_affine;
    return table;
  }();
  return kTable;
}

}  // namespace allmem::i8mm
