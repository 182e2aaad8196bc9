// The tables of the x86-64 kernels. Compiled for the baseline: looking them up is safe on any machine.
#include "kernels/x86/amx.h"
#include "kernels/x86/avx2.h"
#include "kernels/x86/avx512vnni.h"
#include "kernels/x86/avxvnni.h"

namespace allmem::avx2 {

const Kernels& kernels() { return kTable; }

}  // namespace allmem::avx2

namespace allmem::avxvnni {

const Kernels& kernels() {
  static const Kernels kTable = [] {
    Kernels table = avx2::kernels();
    table.name = "avxvnni";
    table.needs = cpu::kAvx2 | cpu::kAvxVnni;
    table.linear_q8 = linear_q8;
    table.linear_affine = linear_affine;
    return table;
  }();
  return kTable;
}

}  // namespace allmem::avxvnni

namespace allmem::avx512vnni {

const Kernels& kernels() {
  static const Kernels kTable = [] {
    Kernels table = avx2::kernels();
    table.name = "avx512vnni";
    table.needs = cpu::kAvx2 | cpu::kAvx512Vnni;
    table.linear_f32 = linear_f32;
    table.quantise = quantise;
    table.linear_q8 = linear_q8;
    table.linear_affine = linear_affine;
    table.silu_mul = silu_mul;
    table.softmax_step = softmax_step;
    table.memory_read = memory_read;
    table.memory_accumulate = memory_accumulate;
    table.memory_accumulate_fast = memory_accumulate;
    table.linear_memory_write = linear_memory_write;
    return table;
  }();
  return kTable;
}

}  // namespace allmem::avx512vnni

#if !defined(_WIN32)  // see cmake/isa.cmake
namespace allmem::amx {

const Kernels& kernels() {
  static const Kernels kTable = [] {
    Kernels table = avx512vnni::kernels();
    table.name = "amx";
    table.needs = cpu::kAvx2 | cpu::kAvx512Vnni | cpu::kAmx;
    table.linear_q8 = linear_q8;
    table.memory_scratch = memory_scratch;
    table.memory_accumulate_fast = memory_accumulate_fast;
    return table;
  }();
  return kTable;
}

}  // namespace allmem::amx
#endif
