// Which kernel tables this machine can run, and which one is used.
#include <array>
#include <cstdlib>
#include <iterator>
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
#elif defined(__aarch64__)
#include "kernels/arm/dotprod.h"
#include "kernels/arm/i8mm.h"
#include "kernels/arm/neon.h"
#endif

namespace allmem {

namespace {

// Best first.
constexpr const Kernels& (*kTables[])() = {
#if defined(__x86_64__)
#if !defined(_WIN32)
    amx::kernels,
#endif
    avx512vnni::kernels, avxvnni::kernels, avx2::kernels,
#elif defined(__aarch64__)
    i8mm::kernels,
    dotprod::kernels,
    neon::kernels,
#endif
    ref_kernels,
};
constexpr size_t kCount = std::size(kTables);
static_assert(kCount == ALLMEM_ISA_COUNT + 1, "kTables and the list in cmake/isa.cmake differ");

// The tables that need nothing but `features`.
class Tables {
 public:
  explicit Tables(CpuFeatures features) {
    for (const auto table : kTables) {
      if ((table().needs & ~features) == 0) tables_[count_++] = &table();
    }
  }
  std::span<const Kernels* const> all() const { return std::span(tables_).first(count_); }

 private:
  std::array<const Kernels*, kCount> tables_{};
  size_t count_ = 0;
};

}  // namespace

std::span<const Kernels* const> compiled_kernels() {
  static const Tables kCompiled(~CpuFeatures{0});
  return kCompiled.all();
}

std::span<const Kernels* const> available_kernels() {
  static const Tables kAvailable(detect_cpu_features());
  return kAvailable.all();
}

const Kernels& best_kernels() {
  const auto available = available_kernels();
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
