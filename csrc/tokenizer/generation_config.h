// What generation_config.json says of a model: which tokens end its texts, and how they are best drawn.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace allmem {

// Of what the file does not say there is nothing. Ranges are not checked here.
struct GenerationConfig {
  std::vector<int32_t> stop_ids;      // eos_token_id: one id, or a list of them
  std::optional<double> temperature;  // 0 when do_sample is false
  std::optional<int64_t> top_k;
  std::optional<double> top_p, min_p, repetition_penalty;
};

// From the file's content `json`. Throws Error (kBadTokenizer): no JSON, a field of the wrong type.
GenerationConfig generation_config(std::string_view json, const std::string& name_for_errors);

}  // namespace allmem
