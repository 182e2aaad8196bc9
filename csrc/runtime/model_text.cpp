// Reads the small files of a model directory.
#include "runtime/model_text.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <set>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "platform/error.h"
#include "platform/printable.h"
#include "runtime/chat_format.h"
#include "tokenizer/json_node.h"

namespace allmem {
namespace {

constexpr size_t kMaxTokenBytes = 1024;               // as in tokenizer.json
constexpr size_t kMaxTokensBytes = size_t{1} << 20;   // of those that are looked for there
constexpr size_t kMaxConfigBytes = size_t{16} << 20;  // a config is some kilobytes

std::string_view text_of(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

// Integers of more than 64 bits as floats, which simdjson reads: transformers writes model_max_length = 10^30
// where there is no limit.
std::string without_big_integers(std::string_view json) {
  constexpr size_t kSafeDigits = 18;
  std::string out;
  bool in_string = false;
  for (size_t i = 0; i < json.size();) {
    if (json[i] == '"') in_string = !in_string;
    // Not within a string: its digits would be looked through again at each of them.
    const size_t end = in_string ? i : std::min(json.find_first_not_of("0123456789", i), json.size());
    if (end == i) {
      const size_t count = in_string && json[i] == '\\' && i + 1 < json.size() ? 2 : 1;  // an escaped quote
      out += json.substr(i, count);
      i += count;
      continue;
    }
    out += json.substr(i, end - i);
    const size_t before = json.find_last_not_of("+-", i == 0 ? 0 : i - 1);
    const auto in_float = [&](size_t at) {
      return at < json.size() && std::string_view(".eE").find(json[at]) != std::string_view::npos;
    };
    if (end - i > kSafeDigits && !in_float(before) && !in_float(end)) out += "e0";
    i = end;
  }
  return out;
}

// A JSON file that may be missing: then no field is there.
class Config {
 public:
  Config(const FindFile& find, const char* file_name) {
    const auto file = find(file_name);
    if (!file) return;
    name_ = printable(file->path());
    if (file->bytes().size() > kMaxConfigBytes) {
      throw Error(ErrorCode::kBadTokenizer, name_ + " is larger than 16 MiB, which no such file needs.");
    }
    root_.emplace(parse_json(parser_, without_big_integers(text_of(*file)), name_), name_);
    root_->object();
  }
  Config(const Config&) = delete;
  Config& operator=(const Config&) = delete;

  std::optional<JsonNode> maybe(std::string_view key) const {
    return root_ ? root_->maybe(key) : std::nullopt;
  }
  bool has(std::string_view key) const { return root_ && root_->has(key); }
  std::vector<std::pair<std::string_view, JsonNode>> fields() const {
    return root_ ? root_->fields() : std::vector<std::pair<std::string_view, JsonNode>>();
  }
  const std::string& name() const { return name_; }

 private:
  simdjson::dom::parser parser_;
  std::string name_;
  std::optional<JsonNode> root_;
};

int32_t token_id(const JsonNode& node) {
  const int64_t id = node.integer();
  if (id < 0 || id > std::numeric_limits<int32_t>::max()) node.bad("is not a token id");
  return static_cast<int32_t>(id);
}

std::vector<int32_t> token_ids(const JsonNode& field) {
  if (!field.is_array()) return {token_id(field)};
  std::vector<int32_t> ids;
  for (const JsonNode& item : field.items()) ids.push_back(token_id(item));
  return ids;
}

template <class Number>
Number number(const JsonNode& field) {
  if constexpr (std::is_floating_point_v<Number>) {
    return static_cast<Number>(field.number());
  } else {
    const int64_t value = field.integer();
    if (!std::in_range<Number>(value)) field.bad("is out of its range");
    return static_cast<Number>(value);
  }
}

SamplerOptions read_sampling(const Config& generation, SamplerOptions options) {
  each_sampling_option(
      [&](const char* name, auto& option) {
        if (const auto field = generation.maybe(name)) {
          option = number<std::remove_reference_t<decltype(option)>>(*field);
        }
      },
      options);
  const auto sampled = generation.maybe("do_sample");
  if (sampled && !sampled->boolean()) options.temperature = 0.0f;
  try {
    Sampler(options, 1);
  } catch (const Error& error) {
    throw Error(ErrorCode::kBadTokenizer, generation.name() + ": " + error.what());
  }
  return options;
}

constexpr std::string_view kRoles[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                       "pad_token", "cls_token", "mask_token"};
constexpr auto kUnseenRoles = std::span(kRoles).subspan<2>();

// "</s>" or {"content": "</s>", ...}
std::string_view content_of(const JsonNode& token) {
  return token.is_object() ? token.field("content").string() : token.string();
}

// What tokenizer_config.json and the files before its time say of tokens, as `transformers` takes it: a
// config with added_tokens_decoder has it all; else special_tokens_map.json counts before it, and
// added_tokens.json has more tokens.
class TokenFiles {
 public:
  explicit TokenFiles(const FindFile& find)
      : config(find, "tokenizer_config.json"),
        map_(find, "special_tokens_map.json"),
        added_(find, "added_tokens.json"),
        is_whole_(config.has("added_tokens_decoder")) {}

  // By role, those that only this model has ("image_token") included.
  std::map<std::string, JsonNode> special_tokens() const {
    std::map<std::string, JsonNode> tokens;
    std::set<std::string_view> mapped;
    for (const auto& [key, value] : map_fields()) {
      mapped.insert(key);
      if (key.ends_with("_token") && !value.is_null()) tokens.insert_or_assign(std::string(key), value);
    }
    for (const auto& [key, value] : config.fields()) {
      const bool is_role = std::ranges::find(kRoles, key) != std::ranges::end(kRoles);
      if (is_role ? value.is_null() || mapped.contains(key)
                  : !key.ends_with("_token") || !value.is_string()) {
        continue;
      }
      tokens.insert_or_assign(std::string(key), value);
    }
    for (const auto& named : {config.maybe("extra_special_tokens"), map_field("extra_special_tokens")}) {
      if (!named || !named->is_object()) continue;
      for (const auto& [key, value] : named->fields()) tokens.insert_or_assign(std::string(key), value);
    }
    return tokens;
  }

  // `transformers` adds tokens that tokenizer.json lacks. Here they are refused: without them a template's
  // marks would be split into pieces that the model never saw. Not those that only pad or mask: no text has
  // them.
  void check(const Tokenizer& tokenizer) const {
    size_t bytes = 0;
    const auto check_one = [&](const std::string& file, std::string_view token) {
      bytes += token.size();
      if (token.size() > kMaxTokenBytes)
        throw Error(ErrorCode::kBadTokenizer, file + " has a token of more than 1024 bytes.");
      if (bytes > kMaxTokensBytes)
        throw Error(ErrorCode::kBadTokenizer, file + " has more than 1 MiB of tokens.");
      if (token.empty() || tokenizer.encode(token).size() == 1) return;
      throw Error(ErrorCode::kBadTokenizer,
                  file + " has the token " + printable(quoted(token)) +
                      ", but tokenizer.json does not: load and save the tokenizer with transformers, which "
                      "puts all tokens into one file.");
    };
    const auto check_all = [&](const std::optional<JsonNode>& list) {
      if (!list || list->is_object()) return;  // those with a name are special_tokens()
      for (const JsonNode& token : list->items()) check_one(token.file(), content_of(token));
    };
    for (const auto& [role, token] : special_tokens()) {
      if (std::ranges::find(kUnseenRoles, role) == std::ranges::end(kUnseenRoles))
        check_one(token.file(), content_of(token));
    }
    const auto listed = config.maybe("additional_special_tokens");
    check_all(listed ? listed : map_field("additional_special_tokens"));
    check_all(config.maybe("extra_special_tokens"));
    check_all(map_field("extra_special_tokens"));
    if (const auto decoder = config.maybe("added_tokens_decoder")) {
      for (const auto& [_, token] : decoder->fields()) check_one(token.file(), content_of(token));
    }
    if (is_whole_) return;
    for (const auto& [token, _] : added_.fields()) check_one(added_.name(), token);
  }

  const Config config;

 private:
  std::vector<std::pair<std::string_view, JsonNode>> map_fields() const {
    if (is_whole_) return {};
    return map_.fields();
  }
  std::optional<JsonNode> map_field(std::string_view key) const {
    return is_whole_ ? std::nullopt : map_.maybe(key);
  }

  const Config map_, added_;
  const bool is_whole_;
};

std::shared_ptr<const Tokenizer> read_tokenizer(const FindFile& find, int64_t vocab_size) {
  const auto file = find("tokenizer.json");
  if (!file) return nullptr;
  auto tokenizer = Tokenizer::from_json(text_of(*file), file->path());
  if (tokenizer->vocab_size() > vocab_size) {
    throw Error(ErrorCode::kBadTokenizer, printable(file->path()) + " has " +
                                              std::to_string(tokenizer->vocab_size()) +
                                              " tokens, but the model knows " + std::to_string(vocab_size) +
                                              "; the file belongs to another model.");
  }
  return tokenizer;
}

// The id of the special token with this role, if the tokenizer has it.
std::optional<int32_t> id_of(const ModelText& text, const char* role) {
  const auto found = text.special_tokens.find(role);
  if (!text.tokenizer || found == text.special_tokens.end()) return std::nullopt;
  return text.tokenizer->token_id(found->second);
}

std::vector<int32_t> read_prefix(const Config& config, const ModelText& text) {
  const auto add_bos = config.maybe("add_bos_token");
  if (!add_bos) {
    if (!text.tokenizer) return {};
    const std::span<const int32_t> prefix = text.tokenizer->prefix();
    return {prefix.begin(), prefix.end()};
  }
  const auto bos = id_of(text, "bos_token");
  if (!add_bos->boolean() || !bos) return {};
  return {*bos};
}

std::vector<int32_t> read_stop_ids(const Config& generation, const Config& model, const ModelText& text,
                                   int64_t vocab_size) {
  std::vector<int32_t> ids;
  for (const Config* config : {&generation, &model}) {
    const auto field = config->maybe("eos_token_id");
    if (!field) continue;
    ids = token_ids(*field);
    break;
  }
  const auto add = [&](std::optional<int32_t> id) {
    if (id) ids.push_back(*id);
  };
  add(id_of(text, "eos_token"));
  if (text.tokenizer && ChatFormat::chatml(text.tokenizer)) add(text.tokenizer->token_id("<|im_end|>"));
  return known_ids(std::move(ids), static_cast<size_t>(vocab_size));
}

}  // namespace

GenerateOptions default_options() { return {.sampling = {.temperature = 0.7f}}; }

ModelText read_model_text(const FindFile& find, int64_t vocab_size) {
  const Config generation(find, "generation_config.json");
  const TokenFiles tokens(find);
  ModelText text;
  text.tokenizer = read_tokenizer(find, vocab_size);
  if (text.tokenizer) tokens.check(*text.tokenizer);
  for (const auto& [role, token] : tokens.special_tokens()) text.special_tokens[role] = content_of(token);
  text.prefix = read_prefix(tokens.config, text);
  text.defaults = default_options();
  text.defaults.sampling = read_sampling(generation, text.defaults.sampling);
  text.defaults.stop_ids = read_stop_ids(generation, Config(find, "config.json"), text, vocab_size);
  return text;
}

}  // namespace allmem
