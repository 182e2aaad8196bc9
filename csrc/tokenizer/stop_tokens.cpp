// generation_config.json's eos_token_id.
#include "tokenizer/stop_tokens.h"

#include <limits>

#include "platform/printable.h"
#include "tokenizer/json_node.h"

namespace allmem {

std::vector<int32_t> eos_ids(std::string_view json, const std::string& name_for_errors) {
  const std::string name = printable(name_for_errors);
  simdjson::dom::parser parser;
  simdjson::dom::element root;
  if (const auto error = parser.parse(json.data(), json.size()).get(root)) {
    throw Error(ErrorCode::kBadTokenizer,
                name + " is not valid JSON: " + simdjson::error_message(error) + ".");
  }
  const auto field = JsonNode(root, name).maybe("eos_token_id");
  if (!field) return {};
  const auto checked = [](const JsonNode& node) {
    const int64_t id = node.integer();
    if (id < 0 || id > std::numeric_limits<int32_t>::max()) node.bad("is not a token id");
    return static_cast<int32_t>(id);
  };
  simdjson::dom::element value;
  if (root.at_key("eos_token_id").get(value) == simdjson::SUCCESS && !value.is_array())
    return {checked(*field)};
  std::vector<int32_t> ids;
  for (const JsonNode& item : field->items()) ids.push_back(checked(item));
  return ids;
}

}  // namespace allmem
