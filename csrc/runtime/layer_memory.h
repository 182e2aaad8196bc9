// How much a session has learned, layer by layer, and what its state is made of.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "runtime/session.h"

namespace allmem {

// Frobenius norms over all matrices and heads of one layer's memory.
struct LayerMemory {
  int64_t layer = 0;
  double drift = 0;     // ||W - W_0|| / ||W_0||: how far the fast weights are from where the model begins
  double weight = 0;    // ||W_0||
  double momentum = 0;  // ||S||: the size of the last update, made at the end of the last chunk
  double gradient =
      0;  // ||G||: of the next update, as much as the unfinished chunk has in blocks of 32 tokens
};

// Of every layer that has a memory, in their order. Throws kPoisoned.
std::vector<LayerMemory> layer_memories(const Session& session);

// Bytes of a state by part.
struct StateParts {
  size_t window = 0, fast_weights = 0, momentum = 0, gradient = 0;
  size_t other = 0;  // small sums, what operators keep for themselves, padding
};
StateParts state_parts(std::span<const StateInfo> states, size_t total);

}  // namespace allmem
