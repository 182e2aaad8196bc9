// Reads generation_config.json.
#include "tokenizer/generation_config.h"

#include <limits>

#include "platform/printable.h"
#include "tokenizer/json_node.h"

namespace allmem {
namespace {

int32_t token_id(const JsonNode& node) {
  const int64_t id = node.integer();
  if (id < 0 || id > std::numeric_limits<int32_t>::max()) node.bad("is not a token id");
  return static_cast<int32_t>(id);
}

std::vector<int32_t> stop_ids(const JsonNode& field) {
  if (!field.is_array()) return {token_id(field)};
  std::vector<int32_t> ids;
  for (const JsonNode& item : field.items()) ids.push_back(token_id(item));
  return ids;
}

std::optional<double> number(const JsonNode& root, std::string_view key) {
  const auto field = root.maybe(key);
  return field ? std::optional(field->number()) : std::nullopt;
}

}  // namespace

GenerationConfig generation_config(std::string_view json, const std::string& name_for_errors) {
  const std::string name = printable(name_for_errors);
  simdjson::dom::parser parser;
  const JsonNode root(parse_json(parser, json, name), name);
  GenerationConfig config;
  if (const auto field = root.maybe("eos_token_id")) config.stop_ids = stop_ids(*field);
  config.temperature = number(root, "temperature");
  if (const auto field = root.maybe("top_k")) config.top_k = field->integer();
  config.top_p = number(root, "top_p");
  config.min_p = number(root, "min_p");
  config.repetition_penalty = number(root, "repetition_penalty");
  const auto sampled = root.maybe("do_sample");
  if (sampled && !sampled->boolean()) config.temperature = 0.0;
  return config;
}

}  // namespace allmem
