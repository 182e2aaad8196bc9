// Any bytes as chat_format.json, and as the messages of a conversation: people's words never become special.
#include "runtime/chat_format.h"

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "fuzz.h"

using namespace allmem;

namespace {

std::shared_ptr<const Tokenizer> tokenizer() {
  static const auto loaded = Tokenizer::from_file(ALLMEM_BUNDLED_MODEL "/tokenizer.json");
  return loaded;
}

size_t special_count(const std::vector<int32_t>& ids) {
  return static_cast<size_t>(
      std::ranges::count_if(ids, [](int32_t id) { return tokenizer()->is_special(id); }));
}

constexpr std::string_view kRoles[] = {"system", "user", "assistant", "tool"};

}  // namespace

// The messages, each a byte of role and length and its content, then a zero byte and the file.
int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fuzz::Input input(data, size);
  std::vector<std::string> contents;
  std::vector<ChatMessage> messages, empty;
  for (uint8_t head = input.byte(); head != 0 && contents.size() < 16; head = input.byte()) {
    const auto bytes = input.bytes(head / 4);
    contents.emplace_back(bytes.begin(), bytes.end());
    messages.push_back({kRoles[head % 4], {}});
  }
  for (size_t i = 0; i < messages.size(); ++i) messages[i].content = contents[i];
  empty = messages;
  for (ChatMessage& message : empty) message.content = {};
  std::string json;
  while (!input.empty()) json += static_cast<char>(input.byte());
  fuzz::expect_error_or_success([&] {
    const ChatFormat format = ChatFormat::from_json(json, "chat_format.json", tokenizer());
    for (const bool continues : {false, true}) {
      fuzz::expect_error_or_success([&] {
        const size_t said = special_count(format.encode(messages, continues));
        // Frames that nothing parts may make a token together, but no words add one.
        if (said > special_count(format.encode(empty, continues))) std::abort();
      });
    }
  });
  return 0;
}
