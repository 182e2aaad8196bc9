// What the processor and the operating system together can run, asked once per call and never assumed.
#pragma once

#include <cstdint>

namespace allmem {

// A set: the sum of constants of allmem::cpu.
using CpuFeatures = uint32_t;

// Each says that the system saves the registers of it, too.
namespace cpu {
// x86-64
inline constexpr CpuFeatures kAvx2 = 1 << 0;        // AVX2, FMA and F16C
inline constexpr CpuFeatures kAvxVnni = 1 << 1;     // 8-bit dot products in ymm registers; implies kAvx2
inline constexpr CpuFeatures kAvx512Vnni = 1 << 2;  // AVX-512 F, BW, DQ, VL and VNNI; implies kAvx2
// AVX-512 BF16, and AMX tiles of 8-bit integers and of bfloat16, which the system grants us; implies
// kAvx512Vnni
inline constexpr CpuFeatures kAmx = 1 << 3;
// arm64
inline constexpr CpuFeatures kDotProduct = 1 << 4;         // of 8 bits (sdot)
inline constexpr CpuFeatures kInt8MatrixProduct = 1 << 5;  // of 8 bits (smmla)
}  // namespace cpu

CpuFeatures detect_cpu_features();

}  // namespace allmem
