// Reads chat_format.json and puts a conversation together.
#include "runtime/chat_format.h"

#include <algorithm>
#include <array>
#include <utility>

#include "platform/error.h"
#include "platform/printable.h"
#include "tokenizer/json_node.h"
#include "tokenizer/unicode.h"
#include "tokenizer/watch.h"

namespace allmem {
namespace {

constexpr int64_t kChatFormat = 1;
constexpr size_t kMaxFrameBytes = size_t{1} << 20;
constexpr std::string_view kBefore[] = {"system", "user", "assistant", "start"};
constexpr std::string_view kAfter[] = {"system", "user", "assistant", "answer"};

template <size_t kSize>
size_t index_of(const std::string_view (&names)[kSize], std::string_view name) {
  return static_cast<size_t>(std::ranges::find(names, name) - names);
}

// Calls visit(place, value) for each field of an object whose keys are some of `names`.
template <size_t kSize, class Visit>
void each_role(const JsonNode& node, const std::string_view (&names)[kSize], const Visit& visit) {
  std::array<bool, kSize> seen{};
  for (const auto field : node.object()) {
    const size_t place = index_of(names, field.key);
    if (place == kSize) node.bad("has an unknown role");
    if (std::exchange(seen[place], true)) node.bad("has the role " + std::string(field.key) + " twice");
    visit(place, node.field(field.key));
  }
}

std::string bounded(const JsonNode& node) {
  const std::string_view text = node.string();
  if (text.size() > kMaxFrameBytes) node.bad("is longer than 1 MiB");
  return std::string(text);
}

// White space as Python's str.strip() sees it.
bool is_stripped(char32_t c) { return is_white_space(c) || (c >= 0x1C && c <= 0x1F); }

std::string_view stripped(std::string_view text, Watch& watch) {
  while (!text.empty()) {
    watch.did(1);
    const Utf8Step step = utf8_step(text, 0);
    if (!step.valid || !is_stripped(step.code_point)) break;
    text.remove_prefix(step.length);
  }
  while (!text.empty()) {
    watch.did(1);
    size_t last = text.size() - 1;  // where the last character begins
    while (last > 0 && text.size() - last < 4 && (text[last] & 0xC0) == 0x80) --last;
    const Utf8Step step = utf8_step(text, last);
    if (!step.valid || last + step.length != text.size() || !is_stripped(step.code_point)) break;
    text.remove_suffix(step.length);
  }
  return text;
}

// What is left of an earlier answer.
std::string_view without_reasoning(std::string_view answer, std::string_view end, Watch& watch) {
  for (size_t at = answer.size() + 1; at-- > 0;) {
    watch.did(1);
    if (!answer.substr(at).starts_with(end)) continue;
    answer.remove_prefix(at + end.size());
    while (answer.starts_with('\n')) answer.remove_prefix(1);
    break;
  }
  return answer;
}

}  // namespace

ChatFormat ChatFormat::from_json(std::string_view json, const std::string& name_for_errors,
                                 std::shared_ptr<const Tokenizer> tokenizer) {
  const std::string name = printable(name_for_errors);
  simdjson::dom::parser parser;
  const JsonNode root(parse_json(parser, json, name), name);
  const int64_t version = root.field("format").integer();
  if (version != kChatFormat) {
    throw Error(ErrorCode::kUnsupported, name + " has format " + std::to_string(version) +
                                             ", but this version reads format 1; update allmem-edge.");
  }
  ChatFormat format(std::move(tokenizer));
  if (const auto reason = root.maybe("unusable")) {
    format.unusable_ = printable(bounded(*reason));
    if (format.unusable_.empty()) reason->bad("is empty");
    return format;
  }
  const JsonNode frames = root.field("frames");
  each_role(frames, kBefore, [&](size_t from, const JsonNode& following) {
    each_role(following, kAfter,
              [&](size_t to, const JsonNode& frame) { format.frames_[from][to] = bounded(frame); });
  });
  if (!format.frames_[kStart][kUser] || !format.frames_[kUser][kAnswer] ||
      !format.frames_[kAssistant][kUser]) {
    frames.bad("lacks the text between two turns");
  }
  if (const auto trimmed = root.maybe("trim")) {
    for (const JsonNode& role : trimmed->items()) {
      const size_t place = index_of(kBefore, role.string());
      if (place >= kStart) role.bad("is not a role");
      format.trimmed_[place] = true;
    }
  }
  if (const auto end = root.maybe("reasoning_end")) format.reasoning_end_ = bounded(*end);
  return format;
}

std::optional<ChatFormat> ChatFormat::chatml(std::shared_ptr<const Tokenizer> tokenizer) {
  const auto is_special = [&](std::string_view token) {
    const auto id = tokenizer->token_id(token);
    return id && tokenizer->is_special(*id);
  };
  if (!is_special("<|im_start|>") || !is_special("<|im_end|>")) return std::nullopt;
  ChatFormat format(std::move(tokenizer));
  for (size_t before = 0; before < kPlaces; ++before) {
    for (size_t after = 0; after < kPlaces; ++after) {
      const std::string_view role = after == kAnswer ? "assistant" : kAfter[after];
      format.frames_[before][after] =
          std::string(before == kStart ? "" : "<|im_end|>\n") + "<|im_start|>" + std::string(role) + "\n";
    }
  }
  return format;
}

ChatFormat::Place ChatFormat::place_of(std::string_view role) {
  const size_t place = index_of(kBefore, role);
  if (place < kStart) return static_cast<Place>(place);
  throw Error(ErrorCode::kInvalidArgument,
              printable("The role '" + std::string(role) + "' is none of system, user and assistant."));
}

const std::string& ChatFormat::frame(size_t before, size_t after) const {
  const std::optional<std::string>& found = frames_[before][after];
  if (found) return *found;
  const std::string what =
      after == kAnswer ? "no answer" : "no message of the role " + std::string(kAfter[after]);
  const std::string where = before == kStart ? " at the start of a conversation"
                                             : " after one of the role " + std::string(kBefore[before]);
  throw Error(ErrorCode::kUnsupported, "The model's chat format has " + what + where + ".");
}

std::vector<int32_t> ChatFormat::encode(std::span<const ChatMessage> messages, bool continues,
                                        const std::function<bool()>& go_on) const {
  if (messages.empty())
    throw Error(ErrorCode::kInvalidArgument, "A conversation needs at least one message.");
  if (!usable()) {
    throw Error(ErrorCode::kUnsupported, "The model's chat template " + unusable_ +
                                             ": render it yourself and encode it with allmem_tokenize().");
  }
  Watch watch(go_on);
  std::vector<TextPart> parts;
  size_t before = continues ? kAssistant : kStart;
  for (const ChatMessage& message : messages) {
    const Place place = place_of(message.role);
    parts.push_back({frame(before, place), false});
    std::string_view content = message.content;
    if (place == kAssistant && !reasoning_end_.empty())
      content = without_reasoning(content, reasoning_end_, watch);
    parts.push_back({trimmed_[place] ? stripped(content, watch) : content, true});
    before = place;
  }
  parts.push_back({frame(before, kAnswer), false});
  return tokenizer_->encode(parts, go_on);
}

}  // namespace allmem
