// Compares a session's fast weights with the model's own.
#include "runtime/memory_drift.h"

#include <cmath>
#include <string>

#include "platform/error.h"

namespace allmem {

double memory_drift(const Session& session, int64_t layer) {
  const std::string prefix = "layers." + std::to_string(layer) + ".memory.weight.";
  const Program& program = session.model().program();
  double moved = 0, norm = 0;
  bool found = false;
  for (size_t index = 0; index < program.states.size(); ++index) {
    const State& part = program.states[index];
    if (!part.name.starts_with(prefix)) continue;
    found = true;
    const std::span<const float> now = session.state(index);
    for (size_t i = 0; i < now.size(); ++i) {
      const float start = part.initial.empty() ? 0.0f : part.initial[i];
      const double step = static_cast<double>(now[i]) - static_cast<double>(start);
      moved += step * step;
      norm += static_cast<double>(start) * static_cast<double>(start);
    }
  }
  if (!found) {
    throw Error(ErrorCode::kInvalidArgument,
                "The model has no memory in a layer " + std::to_string(layer) + ".");
  }
  return norm > 0 ? std::sqrt(moved / norm) : std::sqrt(moved);
}

}  // namespace allmem
