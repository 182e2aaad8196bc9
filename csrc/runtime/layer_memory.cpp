// Compares a session's fast weights with the model's own, and measures what is about to change them.
#include "runtime/layer_memory.h"

#include <charconv>
#include <cmath>
#include <map>
#include <string_view>

#include "platform/error.h"

namespace allmem {

namespace {

// "layers.3.memory..." is of layer 3; a name without a layer is of layer 0.
int64_t layer_of(std::string_view name) {
  constexpr std::string_view kPrefix = "layers.";
  int64_t layer = 0;
  if (name.starts_with(kPrefix)) {
    std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), layer);
  }
  return layer;
}

double square_norm(std::span<const float> values) {
  double sum = 0;
  for (const float value : values) sum += static_cast<double>(value) * static_cast<double>(value);
  return sum;
}

// ||now - start||²; an empty start is zeros.
double square_distance(std::span<const float> now, std::span<const float> start) {
  if (start.empty()) return square_norm(now);
  double sum = 0;
  for (size_t i = 0; i < now.size(); ++i) {
    const double step = static_cast<double>(now[i]) - static_cast<double>(start[i]);
    sum += step * step;
  }
  return sum;
}

}  // namespace

std::vector<LayerMemory> layer_memories(const Session& session) {
  struct Squares {
    double moved = 0, weight = 0, momentum = 0, gradient = 0;
  };
  std::map<int64_t, Squares> layers;
  const std::vector<State>& states = session.model().program().states;
  for (size_t i = 0; i < states.size(); ++i) {
    const std::string_view name = states[i].name;
    const auto is = [name](const char* kind) { return name.find(kind) != std::string_view::npos; };
    if (is("memory.weight.")) {
      Squares& layer = layers[layer_of(name)];
      layer.moved += square_distance(session.state(i), states[i].initial);
      layer.weight += square_norm(states[i].initial);
    } else if (is("memory.momentum.")) {
      layers[layer_of(name)].momentum += square_norm(session.state(i));
    } else if (is("memory.gradient.")) {
      layers[layer_of(name)].gradient += square_norm(session.state(i));
    }
  }
  std::vector<LayerMemory> report;
  report.reserve(layers.size());
  for (const auto& [layer, squares] : layers) {
    report.push_back({.layer = layer,
                      .drift = std::sqrt(squares.weight > 0 ? squares.moved / squares.weight : squares.moved),
                      .weight = std::sqrt(squares.weight),
                      .momentum = std::sqrt(squares.momentum),
                      .gradient = std::sqrt(squares.gradient)});
  }
  return report;
}

StateParts state_parts(std::span<const StateInfo> states, size_t total) {
  StateParts parts;
  size_t known = 0;
  for (const StateInfo& state : states) {
    const auto is = [&](const char* kind) { return state.name.find(kind) != std::string::npos; };
    size_t* part = is("attention.")         ? &parts.window
                   : is("memory.weight.")   ? &parts.fast_weights
                   : is("memory.momentum.") ? &parts.momentum
                   : is("memory.gradient.") ? &parts.gradient
                                            : nullptr;
    if (part == nullptr) continue;
    *part += state.bytes;
    known += state.bytes;
  }
  parts.other = total - known;
  return parts;
}

}  // namespace allmem
