// Which tokens end a text, as generation_config.json says.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace allmem {

// `eos_token_id` of the file's content `json`: one id, a list of them, or none. Throws Error (kBadTokenizer).
std::vector<int32_t> eos_ids(std::string_view json, const std::string& name_for_errors);

}  // namespace allmem
