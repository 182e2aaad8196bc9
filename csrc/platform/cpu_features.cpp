// Instruction set detection: cpuid and xgetbv on x86-64, the kernel's auxiliary vector on arm64 Linux and
// Android, sysctl on Apple's systems.
#include "platform/cpu_features.h"

#if defined(__x86_64__)
#include <cpuid.h>

#include <cstdint>

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>

#include <cstddef>
#endif

namespace allmem {

#if defined(__x86_64__)

namespace {

// The register states that the operating system saves on a context switch (XCR0). Only valid with OSXSAVE
// set.
uint64_t saved_register_states() {
  uint32_t low = 0, high = 0;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (uint64_t{high} << 32) | low;
}

// Tile registers are 8 KiB that a context switch has to save, so Linux wants a process to ask for them, once.
bool tiles_granted() {
#if defined(__linux__) && defined(SYS_arch_prctl)
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return (saved_register_states() & 0x60000) == 0x60000 &&     // tile configuration and data
         syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

}  // namespace

CpuFeatures detect_cpu_features() {
  CpuFeatures features = 0;
  uint32_t a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0) return features;
  const bool os_saves_registers = (c & (1u << 27)) != 0;  // OSXSAVE
  const bool fma = (c & (1u << 12)) != 0;
  const bool avx = (c & (1u << 28)) != 0;
  const bool f16c = (c & (1u << 29)) != 0;
  if (!os_saves_registers || !avx || __get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return features;
  const bool avx2 = (b & (1u << 5)) != 0;
  const bool ymm_saved = (saved_register_states() & 0x6) == 0x6;  // xmm (bit 1) and ymm (bit 2)
  if (!avx2 || !fma || !f16c || !ymm_saved) return features;
  features |= cpu::kAvx2;
  constexpr uint32_t kF = 1u << 16, kDq = 1u << 17, kBw = 1u << 30, kVl = 1u << 31, kVnni = 1u << 11;
  const bool zmm_saved =
      (saved_register_states() & 0xE6) == 0xE6;  // and opmask, zmm 0-15, zmm 16-31 (bits 5-7)
  const bool avx512vnni =
      zmm_saved && (b & (kF | kDq | kBw | kVl)) == (kF | kDq | kBw | kVl) && (c & kVnni) != 0;
  if (avx512vnni) features |= cpu::kAvx512Vnni;
  constexpr uint32_t kTiles = 1u << 24, kOfInt8 = 1u << 25, kOfBfloat16 = 1u << 22;
  const bool tiles = (d & (kTiles | kOfInt8 | kOfBfloat16)) == (kTiles | kOfInt8 | kOfBfloat16);
  if (__get_cpuid_count(7, 1, &a, &b, &c, &d) == 0) return features;
  if ((a & (1u << 4)) != 0) features |= cpu::kAvxVnni;
  const bool avx512bf16 = (a & (1u << 5)) != 0;
  if (avx512vnni && avx512bf16 && tiles && tiles_granted()) features |= cpu::kAmx;
  return features;
}

#elif defined(__aarch64__) && defined(__linux__)

CpuFeatures detect_cpu_features() {
  // The bits of <asm/hwcap.h>, spelled out because older headers lack the second.
  constexpr unsigned long kAsimdDotProduct = 1ul << 20;    // HWCAP_ASIMDDP
  constexpr unsigned long kInt8MatrixProduct = 1ul << 13;  // HWCAP2_I8MM
  CpuFeatures features = 0;
  if ((getauxval(AT_HWCAP) & kAsimdDotProduct) != 0) features |= cpu::kDotProduct;
  if ((getauxval(AT_HWCAP2) & kInt8MatrixProduct) != 0) features |= cpu::kInt8MatrixProduct;
  return features;
}

#elif defined(__aarch64__) && defined(__APPLE__)

namespace {

// Systems before macOS 12 and iOS 15 do not know these names: then the feature is taken to be missing.
bool has_feature(const char* name) {
  int value = 0;
  std::size_t size = sizeof(value);
  return sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value != 0;
}

}  // namespace

CpuFeatures detect_cpu_features() {
  CpuFeatures features = 0;
  if (has_feature("hw.optional.arm.FEAT_DotProd")) features |= cpu::kDotProduct;
  if (has_feature("hw.optional.arm.FEAT_I8MM")) features |= cpu::kInt8MatrixProduct;
  return features;
}

#else

CpuFeatures detect_cpu_features() { return 0; }

#endif

}  // namespace allmem
