// What is chosen when a model is loaded, within what its file allows.
#pragma once

#include <cstdint>
#include <optional>

#include "graph/program.h"

namespace allmem {

enum class MemoryUse {
  kOn,      // read and written
  kFrozen,  // read as training left it, never written: nothing that writing needs is kept
  kOff,     // left out: neither computed nor allocated
};

inline const char* name_of(MemoryUse memory) {
  return memory == MemoryUse::kOn ? "on" : memory == MemoryUse::kFrozen ? "frozen" : "off";
}

struct Choices {
  Precision precision = Precision::kFast;
  // Tokens; nothing: as the file says. A window as long as the text is full attention.
  std::optional<int64_t> window, sinks, chunk;
  MemoryUse memory = MemoryUse::kOn;

  Choices() = default;
  Choices(Precision the_precision) : precision(the_precision) {}  // NOLINT: the commonest choice, alone
};

inline constexpr int64_t kMaxWindow = int64_t{1} << 20;  // also the most sinks

}  // namespace allmem
