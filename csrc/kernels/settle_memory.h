// Learning what an unfinished chunk of the test-time memory has, as if it ended here, but without a step of
// the momentum: nothing decays or moves twice.
#pragma once

#include <algorithm>

#include "kernels/kernels.h"

namespace allmem {

// S += G, W = r W - G, G = 0. False when G was 0, and nothing has changed.
inline bool settle_memory(const Kernels& kernels, const MemoryHead& head) {
  const size_t size = head.hidden * head.dim;
  const auto nothing = [&](const float* g) {
    return std::all_of(g, g + size, [](float value) { return value == 0.0f; });
  };
  if (nothing(head.g_gate) && nothing(head.g_up) && nothing(head.g_down)) return false;
  kernels.add(head.s_gate, head.g_gate, head.s_gate, size);
  kernels.add(head.s_up, head.g_up, head.s_up, size);
  kernels.add(head.s_down, head.g_down, head.s_down, size);
  MemoryHead alone = head;  // a momentum of G alone: W = r W - (0 G + G)
  alone.s_gate = head.g_gate;
  alone.s_up = head.g_up;
  alone.s_down = head.g_down;
  kernels.memory_write(alone, 0.0f);
  return true;
}

}  // namespace allmem
