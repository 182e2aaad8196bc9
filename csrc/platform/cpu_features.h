// What the processor and the operating system together can run, asked once per call and never assumed.
#pragma once

namespace allmem {

struct CpuFeatures {
  bool avx2 = false;  // x86-64: AVX2, FMA and F16C, and the system saves the ymm registers
  bool avx512vnni =
      false;  // x86-64: AVX2 and AVX-512 F, BW, DQ, VL and VNNI, and the system saves the zmm registers
  bool avxvnni = false;  // x86-64: AVX2 and AVX-VNNI, 8-bit dot products in ymm registers
  // x86-64: all of avx512vnni and AVX-512 BF16, and AMX tiles of 8-bit integers and of bfloat16, which the
  // system grants us
  bool amx = false;
  bool dotprod = false;  // arm64: 8-bit dot products (sdot)
  bool i8mm = false;     // arm64: 8-bit matrix products (smmla)
};

CpuFeatures detect_cpu_features();

}  // namespace allmem
