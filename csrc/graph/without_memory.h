// A graph whose memory is left out: as if every memory gave zeros, and without all that only it
// needs.
#pragma once

#include <map>
#include <set>
#include <string_view>
#include <vector>

#include "onnx/model.h"

namespace allmem {

constexpr std::string_view kStateSuffix = ".state";  // of a memory's name: its state's

struct WithoutMemory {
  std::vector<bool> keeps;                                  // by node
  std::map<std::string_view, std::string_view> stands_for;  // x for x + 0
  std::set<std::string_view> states;                        // of the memory: NAME.state

  std::string_view name(std::string_view given) const {
    const auto found = stands_for.find(given);
    return found == stands_for.end() ? given : found->second;
  }
};

// Throws Error (kUnsupported) where the zeros meet an operator of which this does not know what it makes of
// them.
WithoutMemory without_memory(const onnx::Model& model);

}  // namespace allmem
