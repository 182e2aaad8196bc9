// A value inside tokenizer.json that knows its path, so that every refusal can name file and field.
#pragma once

#include <simdjson.h>

#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "platform/error.h"
#include "platform/printable.h"

namespace allmem {

inline constexpr size_t kMostQuoted = 60;  // bytes of a file's own text within a sentence

// `text` in quotes, shortened for a sentence.
inline std::string quoted(std::string_view text) {
  if (text.size() > kMostQuoted) return "of " + std::to_string(text.size()) + " bytes";
  return "\"" + std::string(text) + "\"";
}

// The root of `json`, which lives as long as the parser does. Throws kBadTokenizer.
inline simdjson::dom::element parse_json(simdjson::dom::parser& parser, std::string_view json,
                                         const std::string& file) {
  simdjson::dom::element root;
  // simdjson copies the text, and may not be asked to copy from null.
  if (const auto error = parser.parse(json.empty() ? "" : json.data(), json.size()).get(root)) {
    if (error == simdjson::MEMALLOC) throw std::bad_alloc();
    throw Error(ErrorCode::kBadTokenizer,
                file + " is not valid JSON: " + simdjson::error_message(error) + ".");
  }
  return root;
}

class JsonNode {
 public:
  JsonNode(simdjson::dom::element element, const std::string& file) : element_(element), file_(&file) {}

  // Throws kBadTokenizer: "tokenizer.json: model.vocab <what>." What it says may be the file's own text.
  [[noreturn]] void bad(const std::string& what) const {
    throw Error(ErrorCode::kBadTokenizer, printable(*file_ + ": " + place() + " " + what + "."));
  }
  // Throws kUnsupported: "tokenizer.json: normalizer uses <component>, which ..."
  [[noreturn]] void unsupported(std::string_view component) const {
    throw Error(ErrorCode::kUnsupported,
                printable(*file_ + ": " + place() + " uses " + std::string(component) +
                          ", which this tokenizer does not support."));
  }

  JsonNode field(std::string_view key) const {
    simdjson::dom::element value;
    if (object().at_key(key).get(value) != simdjson::SUCCESS) bad("lacks the field " + shown(key));
    return {value, *file_, path_.empty() ? shown(key) : path_ + "." + shown(key)};
  }
  // Nothing if the field is absent or null.
  std::optional<JsonNode> maybe(std::string_view key) const {
    simdjson::dom::element value;
    if (object().at_key(key).get(value) != simdjson::SUCCESS || value.is_null()) return std::nullopt;
    return field(key);
  }
  // Whether the field is there, be it null.
  bool has(std::string_view key) const { return object().at_key(key).error() == simdjson::SUCCESS; }
  std::vector<std::pair<std::string_view, JsonNode>> fields() const {
    std::vector<std::pair<std::string_view, JsonNode>> all;
    for (const auto [key, value] : object()) {
      all.emplace_back(key, JsonNode(value, *file_, path_ + "." + shown(key)));
    }
    return all;
  }
  std::vector<JsonNode> items() const {
    std::vector<JsonNode> nodes;
    for (const simdjson::dom::element value : array()) {
      nodes.push_back(JsonNode(value, *file_, path_ + "[" + std::to_string(nodes.size()) + "]"));
    }
    return nodes;
  }

  bool is_array() const { return element_.is_array(); }
  bool is_null() const { return element_.is_null(); }
  bool is_string() const { return element_.is_string(); }
  bool is_object() const { return element_.is_object(); }
  simdjson::dom::object object() const { return get<simdjson::dom::object>("an object"); }
  simdjson::dom::array array() const { return get<simdjson::dom::array>("an array"); }
  std::string_view string() const { return get<std::string_view>("a string"); }
  bool boolean() const { return get<bool>("true or false"); }
  const std::string& file() const { return *file_; }
  int64_t integer() const { return get<int64_t>("an integer"); }
  double number() const { return get<double>("a number"); }

 private:
  JsonNode(simdjson::dom::element element, const std::string& file, std::string path)
      : element_(element), file_(&file), path_(std::move(path)) {}

  // A key as paths have it: short, as each element of a list keeps the path to it.
  static std::string shown(std::string_view key) {
    return key.size() <= kMostQuoted ? std::string(key) : "(a key " + quoted(key) + ")";
  }
  std::string place() const { return path_.empty() ? "the file" : path_; }

  template <typename T>
  T get(const char* wanted) const {
    T value;
    if (element_.get(value) != simdjson::SUCCESS) bad("is not " + std::string(wanted));
    return value;
  }

  simdjson::dom::element element_;
  const std::string* file_;
  std::string path_;
};

}  // namespace allmem
