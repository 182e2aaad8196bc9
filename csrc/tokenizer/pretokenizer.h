// Cuts text into the pieces that byte-pair merges never cross.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/config.h"
#include "tokenizer/regex.h"
#include "tokenizer/watch.h"

namespace allmem {

class PreTokenizer {
 public:
  // `name` is the file's name for sentences; throws as Regex does.
  PreTokenizer(const TokenizerConfig& config, const std::string& name);

  using Visit = std::function<void(std::string_view piece)>;

  // Calls `visit` for each piece of valid UTF-8 in order, as soon as it is found; no piece is empty.
  void split(std::string_view text, Watch& watch, const Visit& visit) const;

 private:
  struct Step {
    Regex regex;
    SplitStep::Behavior behavior;
    bool invert;
  };
  static void apply(const Step& step, std::string_view text, Watch& watch, const Visit& visit);
  // From `step` of steps_ on.
  void split_from(size_t step, std::string_view text, Watch& watch, const Visit& visit) const;

  std::vector<Step> steps_;
  bool add_prefix_space_;
  std::optional<Step> byte_level_;
};

}  // namespace allmem
