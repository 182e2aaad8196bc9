// Cuts text into the pieces that byte-pair merges never cross.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/config.h"
#include "tokenizer/regex.h"

namespace allmem {

class PreTokenizer {
 public:
  // `name` is the file's name for sentences; throws as Regex does.
  PreTokenizer(const TokenizerConfig& config, const std::string& name);

  // Told how many bytes were gone through, so that it can end a long call by throwing; may be empty.
  using Watch = std::function<void(size_t bytes)>;

  // Calls `visit` for each piece of valid UTF-8 in order; no piece is empty.
  void split(std::string_view text, const std::function<void(std::string_view)>& visit,
             const Watch& watch = {}) const;

 private:
  struct Step {
    Regex regex;
    SplitStep::Behavior behavior;
    bool invert;
  };
  static void apply(const Step& step, std::string_view text, std::vector<std::string_view>& out,
                    const Watch& watch);

  std::vector<Step> steps_;
  bool add_prefix_space_;
  std::optional<Step> byte_level_;
};

}  // namespace allmem
