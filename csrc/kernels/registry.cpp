// Which kernel tables this machine can run, and which one is used.
#include <array>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>

#include "kernels/kernels.h"
#include "platform/error.h"

#if defined(__x86_64__)
#include "kernels/x86/amx.h"
#include "kernels/x86/avx2.h"
#include "kernels/x86/avx512vnni.h"
#include "kernels/x86/avxvnni.h"
#include "platform/cpu_features.h"
#elif defined(__aarch64__)
#include "kernels/arm/dotprod.h"
#include "kernels/arm/i8mm.h"
#include "kernels/arm/neon.h"
#include "platform/cpu_features.h"
#endif

namespace allmem {

size_t available_kernels(const Kernels** out, size_t capacity) {
  size_t count = 0;
  const auto offer = [&](const Kernels& table) {
    if (count < capacity) out[count++] = &table;
  };
#if defined(__x86_64__)
  const CpuFeatures features = detect_cpu_features();
#if !defined(_WIN32)
  if (features.amx) offer(amx::kernels());
#endif
  if (features.avx512vnni) offer(avx512vnni::kernels());
  if (features.avxvnni) offer(avxvnni::kernels());
  if (features.avx2) offer(avx2::kernels());
#elif defined(__aarch64__)
  const CpuFeatures features = detect_cpu_features();
  if (features.dotprod && features.i8mm) offer(i8mm::kernels());
  if (features.dotprod) offer(dotprod::kernels());
  offer(neon::kernels());
#endif
  offer(ref_kernels());
  return count;
}

const Kernels& best_kernels() {
  std::array<const Kernels*, 8> storage;
  const std::span available(storage.data(), available_kernels(storage.data(), storage.size()));
  const char* wanted = std::getenv("ALLMEM_ISA");
  if (wanted == nullptr || *wanted == '\0') return *available.front();
  std::string names;
  for (const Kernels* table : available) {
    if (std::string_view(wanted) == table->name) return *table;
    names += (names.empty() ? "" : ", ") + std::string(table->name);
  }
  throw Error(ErrorCode::kInvalidArgument,
              "The environment variable ALLMEM_ISA asks for the kernels '" + std::string(wanted) +
                  "', but this machine has only: " + names + ". Set it to one of these, or unset it.");
}

}  // namespace allmem
