// ChatML: how a conversation becomes tokens, for models whose special tokens are <|im_start|> and <|im_end|>.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "tokenizer/tokenizer.h"

namespace allmem {

struct ChatMessage {
  std::string_view role;     // "system", "user" or "assistant"
  std::string_view content;  // what people wrote: special tokens in it are plain text
};

class ChatMl {
 public:
  // Nothing when the tokenizer lacks ChatML's tokens.
  static std::optional<ChatMl> of(std::shared_ptr<const Tokenizer> tokenizer);

  // Ids of `messages` and of the opening of the assistant's answer. `continues`: they follow a generated
  // answer, whose end mark was not read. Throws Error (kInvalidArgument): no message, an unknown role.
  std::vector<int32_t> encode(std::span<const ChatMessage> messages, bool continues) const;

 private:
  explicit ChatMl(std::shared_ptr<const Tokenizer> tokenizer) : tokenizer_(std::move(tokenizer)) {}
  std::shared_ptr<const Tokenizer> tokenizer_;
};

}  // namespace allmem
