// ChatML: <|im_start|>role\n content <|im_end|>\n
#include "runtime/chatml.h"

#include <string>

#include "platform/error.h"
#include "platform/printable.h"

namespace allmem {

std::optional<ChatMl> ChatMl::of(std::shared_ptr<const Tokenizer> tokenizer) {
  const auto is_special = [&](std::string_view token) {
    const auto id = tokenizer->token_id(token);
    return id && tokenizer->is_special(*id);
  };
  if (!is_special("<|im_start|>") || !is_special("<|im_end|>")) return std::nullopt;
  return ChatMl(std::move(tokenizer));
}

std::vector<int32_t> ChatMl::encode(std::span<const ChatMessage> messages, bool continues) const {
  if (messages.empty())
    throw Error(ErrorCode::kInvalidArgument, "A conversation needs at least one message.");
  std::vector<int32_t> ids;
  const auto add = [&](std::string_view text, bool special) {
    const std::vector<int32_t> more = tokenizer_->encode(text, special);
    ids.insert(ids.end(), more.begin(), more.end());
  };
  std::string frame = continues ? "<|im_end|>\n" : "";  // between two contents, encoded as one text
  for (const ChatMessage& message : messages) {
    if (message.role != "system" && message.role != "user" && message.role != "assistant") {
      throw Error(ErrorCode::kInvalidArgument, printable("The role '" + std::string(message.role) +
                                                         "' is none of system, user and assistant."));
    }
    add(frame + "<|im_start|>" + std::string(message.role) + "\n", true);
    add(message.content, false);
    frame = "<|im_end|>\n";
  }
  add(frame + "<|im_start|>assistant\n", true);
  return ids;
}

}  // namespace allmem
