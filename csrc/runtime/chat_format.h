// How a conversation becomes tokens: what a model's chat template writes around and between messages, as
// chat_format.json has it (docs/format.md).
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/tokenizer.h"

namespace allmem {

struct ChatMessage {
  std::string_view role;     // "system", "user" or "assistant"
  std::string_view content;  // what people wrote: special tokens in it are plain text
};

class ChatFormat {
 public:
  // From the content of chat_format.json. Throws Error: kBadTokenizer for a damaged file, kUnsupported for a
  // later format. `tokenizer` is not null.
  static ChatFormat from_json(std::string_view json, const std::string& name_for_errors,
                              std::shared_ptr<const Tokenizer> tokenizer);
  // ChatML, for a model without the file; nothing when the tokenizer lacks ChatML's tokens.
  static std::optional<ChatFormat> chatml(std::shared_ptr<const Tokenizer> tokenizer);

  // False when the model's template cannot be written down; encode() then says why.
  bool usable() const { return unusable_.empty(); }

  // Ids of `messages` and of the opening of the assistant's answer. `continues`: they follow a generated
  // answer, whose end mark was not read. Throws Error: kInvalidArgument for no message or an unknown role,
  // kUnsupported for a message that this format has no place for. `go_on`: as Tokenizer::encode() asks it.
  std::vector<int32_t> encode(std::span<const ChatMessage> messages, bool continues,
                              const std::function<bool()>& go_on = {}) const;

 private:
  enum Place { kSystem, kUser, kAssistant, kStart, kPlaces };  // what a frame follows
  static constexpr size_t kAnswer = kStart;  // and what it precedes: a message, or the answer to come

  explicit ChatFormat(std::shared_ptr<const Tokenizer> tokenizer) : tokenizer_(std::move(tokenizer)) {}
  static Place place_of(std::string_view role);
  const std::string& frame(size_t before, size_t after) const;

  std::shared_ptr<const Tokenizer> tokenizer_;
  std::array<std::array<std::optional<std::string>, kPlaces>, kPlaces> frames_;  // [before][after]
  std::array<bool, kStart> trimmed_{};  // by role: without white space at both ends
  std::string reasoning_end_;           // of an earlier answer, only what follows this is shown; mostly empty
  std::string unusable_;
};

}  // namespace allmem
