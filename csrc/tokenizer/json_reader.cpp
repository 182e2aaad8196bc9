// tokenizer.json ▶ TokenizerConfig. Everything is checked here; the other files trust the config.
#include <simdjson.h>

#include <algorithm>
#include <unordered_map>

#include "platform/error.h"
#include "tokenizer/config.h"
#include "tokenizer/json_node.h"

namespace allmem {
namespace {

using VocabIds = std::unordered_map<std::string_view, int32_t>;

constexpr size_t kMaxVocab = size_t{1} << 24;
constexpr size_t kMaxAddedTokenBytes = 1024;
constexpr int kMaxSequenceDepth = 8;
constexpr size_t kMaxPrefix = 64;      // mostly one, BOS
constexpr size_t kMaxSplits = 64;      // each splits the pieces of the one before, within its call
constexpr size_t kMaxNormalForms = 8;  // each goes through all added tokens, and through every text

// Ids index arrays, so a few bytes of JSON must not ask for gigabytes: holes are allowed, a desert is not.
int64_t id_limit(size_t entries) { return static_cast<int64_t>(2 * entries + 65536); }

void read_normalizer(const JsonNode& node, std::vector<NormalForm>& out, int depth = 0) {
  const std::string_view type = node.field("type").string();
  const auto add = [&](NormalForm form) {
    if (out.size() == kMaxNormalForms) node.unsupported("more than 8 normal forms");
    out.push_back(form);
  };
  if (type == "NFC") return add(NormalForm::kNfc);
  if (type == "NFD") return add(NormalForm::kNfd);
  if (type == "NFKC") return add(NormalForm::kNfkc);
  if (type == "NFKD") return add(NormalForm::kNfkd);
  if (type != "Sequence" || depth >= kMaxSequenceDepth) node.unsupported(type);
  for (const JsonNode& part : node.field("normalizers").items()) read_normalizer(part, out, depth + 1);
}

SplitStep::Behavior read_behavior(const JsonNode& node) {
  using Behavior = SplitStep::Behavior;
  const std::string_view name = node.string();
  if (name == "Isolated") return Behavior::kIsolated;
  if (name == "Removed") return Behavior::kRemoved;
  if (name == "MergedWithPrevious") return Behavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return Behavior::kMergedWithNext;
  if (name == "Contiguous") return Behavior::kContiguous;
  node.bad("is not a split behavior");
}

SplitStep read_split(const JsonNode& node) {
  SplitStep step;
  const JsonNode pattern = node.field("pattern");
  const auto regex = pattern.maybe("Regex");
  step.is_regex = regex.has_value();
  step.pattern = regex ? regex->string() : pattern.field("String").string();
  step.behavior = read_behavior(node.field("behavior"));
  step.invert = node.field("invert").boolean();
  return step;
}

// Rust's char::is_numeric in the builds of `tokenizers` knows Unicode 17: its new digits are named one by
// one.
SplitStep read_digits(const JsonNode& node) {
  SplitStep step;
  step.pattern = R"([\p{N}\x{11DE0}-\x{11DE9}\x{16FF4}-\x{16FF6}])";
  step.behavior = node.field("individual_digits").boolean() ? SplitStep::Behavior::kIsolated
                                                            : SplitStep::Behavior::kContiguous;
  return step;
}

// Sets `ended` at ByteLevel: what follows it would see the byte-level alphabet instead of text.
void read_pre_tokenizer(const JsonNode& node, TokenizerConfig& out, bool& ended, int depth = 0) {
  const std::string_view type = node.field("type").string();
  if (ended) node.unsupported(std::string(type) + " after ByteLevel");
  if (type == "Split" || type == "Digits") {
    if (out.splits.size() == kMaxSplits) node.unsupported("more than 64 splitting steps");
    return out.splits.push_back(type == "Split" ? read_split(node) : read_digits(node));
  }
  if (type == "ByteLevel") {
    out.add_prefix_space = node.field("add_prefix_space").boolean();
    const auto use_regex = node.maybe("use_regex");
    out.use_gpt2_pattern = !use_regex || use_regex->boolean();
    ended = true;
    return;
  }
  if (type != "Sequence" || depth >= kMaxSequenceDepth) node.unsupported(type);
  for (const JsonNode& part : node.field("pretokenizers").items()) {
    read_pre_tokenizer(part, out, ended, depth + 1);
  }
}

// True if the decoder, as it must, turns the byte-level alphabet back into bytes and does nothing else.
bool is_byte_level_decoder(const JsonNode& node, int depth = 0) {
  const std::string_view type = node.field("type").string();
  if (type == "ByteLevel") return true;
  if (type == "Fuse") return false;  // joins what ByteLevel has already joined
  if (type != "Sequence" || depth >= kMaxSequenceDepth) node.unsupported(type);
  bool found = false;
  for (const JsonNode& part : node.field("decoders").items()) {
    found = is_byte_level_decoder(part, depth + 1) || found;
  }
  return found;
}

void read_vocab(const JsonNode& node, TokenizerConfig& out, VocabIds& ids) {
  const simdjson::dom::object object = node.object();
  size_t count = 0;
  for ([[maybe_unused]] auto entry : object) ++count;
  if (count == 0) node.bad("is empty");
  if (count > kMaxVocab) node.bad("has more than 16,777,216 tokens");

  int64_t largest = -1;
  for (auto entry : object) {
    int64_t id = 0;
    if (entry.value.get(id) != simdjson::SUCCESS || id < 0 || id >= id_limit(count)) {
      node.bad("has an id out of range for token " + quoted(entry.key));
    }
    largest = std::max(largest, id);
  }
  out.vocab.resize(static_cast<size_t>(largest) + 1);
  ids.reserve(count);
  std::vector<bool> taken(out.vocab.size(), false);
  for (auto entry : object) {
    const auto id = static_cast<size_t>(int64_t(entry.value));
    if (taken[id]) node.bad("gives id " + std::to_string(id) + " to two tokens");
    taken[id] = true;
    out.vocab[id] = entry.key;
    if (!ids.emplace(out.vocab[id], static_cast<int32_t>(id)).second) {
      node.bad("has token " + quoted(entry.key) + " twice");
    }
  }
  out.vocab_size = static_cast<int32_t>(out.vocab.size());
}

int32_t merge_part(const JsonNode& node, const VocabIds& ids, std::string_view token, size_t rank) {
  const auto found = ids.find(token);
  if (found == ids.end()) {
    node.bad("entry " + std::to_string(rank) + " needs token " + quoted(token) + ", which the vocab lacks");
  }
  return found->second;
}

// A merge is "left right" or ["left", "right"].
void read_merges(const JsonNode& node, const VocabIds& ids, std::vector<Merge>& out) {
  std::string joined;
  size_t rank = 0;
  for (const simdjson::dom::element element : node.array()) {
    std::string_view text, left, right;
    simdjson::dom::array pair;
    if (element.get(text) == simdjson::SUCCESS) {
      if (text.starts_with("#version")) continue;
      const size_t space = text.find(' ');
      if (space == std::string_view::npos || text.find(' ', space + 1) != std::string_view::npos) {
        node.bad("entry " + std::to_string(rank) + " is not two tokens with a space between");
      }
      left = text.substr(0, space);
      right = text.substr(space + 1);
    } else if (element.get(pair) != simdjson::SUCCESS || pair.size() != 2 ||
               pair.at(0).get(left) != simdjson::SUCCESS || pair.at(1).get(right) != simdjson::SUCCESS) {
      node.bad("entry " + std::to_string(rank) + " is not a pair of tokens");
    }
    joined.assign(left).append(right);
    out.push_back({merge_part(node, ids, left, rank), merge_part(node, ids, right, rank),
                   merge_part(node, ids, joined, rank)});
    ++rank;
  }
}

void require_empty(const JsonNode& model, std::string_view key) {
  const auto value = model.maybe(key);
  if (value && !value->string().empty()) value->unsupported("a value that is not empty");
}

void read_model(const JsonNode& model, TokenizerConfig& out, VocabIds& ids) {
  const auto type = model.maybe("type");
  if (type && type->string() != "BPE") model.unsupported(type->string());
  require_empty(model, "continuing_subword_prefix");
  require_empty(model, "end_of_word_suffix");
  const auto flag = [&](std::string_view key) {
    const auto value = model.maybe(key);
    return value && value->boolean();
  };
  if (flag("byte_fallback")) model.field("byte_fallback").unsupported("the value true");
  const auto dropout = model.maybe("dropout");
  if (dropout && dropout->number() != 0.0) dropout->unsupported("a value other than null or 0");
  out.fuse_unk = flag("fuse_unk");
  out.ignore_merges = flag("ignore_merges");
  read_vocab(model.field("vocab"), out, ids);
  read_merges(model.field("merges"), ids, out.merges);
  if (const auto unk = model.maybe("unk_token")) {
    const auto found = ids.find(unk->string());
    if (found != ids.end()) out.unk_id = found->second;
  }
}

AddedToken read_added_token(const JsonNode& node) {
  AddedToken token;
  token.content = node.field("content").string();
  if (token.content.empty()) node.field("content").bad("is empty");
  if (token.content.size() > kMaxAddedTokenBytes) node.field("content").unsupported("more than 1024 bytes");
  const int64_t id = node.field("id").integer();
  if (id < 0 || id >= static_cast<int64_t>(kMaxVocab)) node.field("id").bad("is out of range");
  token.id = static_cast<int32_t>(id);
  token.special = node.field("special").boolean();
  token.single_word = node.field("single_word").boolean();
  token.lstrip = node.field("lstrip").boolean();
  token.rstrip = node.field("rstrip").boolean();
  token.normalized = node.field("normalized").boolean();
  return token;
}

// `tokenizers` ignores the ids written here: a token of the vocab keeps its id there, any other takes the
// next free one. Where the file says something else, nobody can know what the model was trained with.
void read_added_tokens(const JsonNode& node, const VocabIds& ids, TokenizerConfig& out) {
  std::unordered_map<std::string, bool> seen;
  const auto vocab_count = static_cast<int32_t>(ids.size());
  int32_t largest = -1;
  for (const JsonNode& item : node.items()) {
    AddedToken token = read_added_token(item);
    if (!seen.emplace(token.content, true).second) item.field("content").bad("was added before");
    const auto known = ids.find(token.content);
    const int32_t expected = known != ids.end() ? known->second : std::max(vocab_count, largest + 1);
    if (token.id != expected) {
      item.field("id").bad("is " + std::to_string(token.id) +
                           " where the vocab and the tokens before it give " + std::to_string(expected));
    }
    if (known == ids.end() && static_cast<size_t>(token.id) < out.vocab.size()) {
      item.field("id").bad("belongs to another token of the vocab, whose ids have gaps");
    }
    largest = std::max(largest, token.id);
    out.vocab_size = std::max(out.vocab_size, token.id + 1);
    out.added_tokens.push_back(std::move(token));
  }
}

// What stands before the text ("A") in the template of a TemplateProcessing. What follows it would end the
// text that is to be continued: nobody asks for that here.
void read_prefix(const JsonNode& node, TokenizerConfig& out, int depth = 0) {
  const std::string_view type = node.field("type").string();
  if (type == "Sequence" && depth < kMaxSequenceDepth) {
    for (const JsonNode& part : node.field("processors").items()) read_prefix(part, out, depth + 1);
  }
  if (type != "TemplateProcessing") return;
  size_t count = 0;
  const auto check_room = [](const JsonNode& at, size_t used) {
    if (used == kMaxPrefix) at.unsupported("more than 64 special tokens before a text");
  };
  for (const JsonNode& item : node.field("single").items()) {
    const auto token = item.maybe("SpecialToken");
    if (!token) return;
    check_room(item, count++);
    const JsonNode name = token->field("id");
    for (const JsonNode& id : node.field("special_tokens").field(name.string()).field("ids").items()) {
      check_room(id, out.prefix.size());
      if (id.integer() < 0 || id.integer() >= out.vocab_size) id.bad("is out of range");
      out.prefix.push_back(static_cast<int32_t>(id.integer()));
    }
  }
}

}  // namespace

TokenizerConfig read_tokenizer_json(std::string_view json, const std::string& name) {
  simdjson::dom::parser parser;
  const JsonNode root(parse_json(parser, json, name), name);
  const auto version = root.maybe("version");
  if (version && version->string() != "1.0") version->unsupported(version->string());

  TokenizerConfig config;
  if (const auto node = root.maybe("normalizer")) read_normalizer(*node, config.normal_forms);
  bool byte_level = false;
  if (const auto node = root.maybe("pre_tokenizer")) read_pre_tokenizer(*node, config, byte_level);
  if (!byte_level) {
    throw Error(ErrorCode::kUnsupported,
                name + " has no ByteLevel pre_tokenizer; only byte-level BPE is supported.");
  }
  const auto decoder = root.maybe("decoder");
  if (!decoder || !is_byte_level_decoder(*decoder)) {
    throw Error(ErrorCode::kUnsupported,
                name + " has no ByteLevel decoder; only byte-level BPE is supported.");
  }
  VocabIds ids;
  read_model(root.field("model"), config, ids);
  if (const auto node = root.maybe("added_tokens")) read_added_tokens(*node, ids, config);
  if (const auto node = root.maybe("post_processor")) read_prefix(*node, config);
  return config;
}

}  // namespace allmem
