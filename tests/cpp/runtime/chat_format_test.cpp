// chat_format.json: conversations become the text that it says, and damaged files are refused.
#include "runtime/chat_format.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "platform/error.h"

using namespace allmem;

namespace {

// A token for each printable ASCII character, space and newline, and two special ones.
std::shared_ptr<const Tokenizer> tokenizer(const std::string& special = "<|im_start|>") {
  std::string vocab;
  int id = 0;
  for (char c = '!'; c <= '~'; ++c) {
    vocab += (c == '"' || c == '\\' ? std::string("\"\\") : std::string("\"")) + c +
             "\":" + std::to_string(id++) + ",";
  }
  const auto added = [&](const std::string& text, int index) {
    return R"({"id":)" + std::to_string(id + index) + R"(,"content":")" + text +
           R"(","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true})";
  };
  vocab += R"("Ġ":)" + std::to_string(id) + R"(,"Ċ":)" + std::to_string(id + 1);
  id += 2;
  return Tokenizer::from_json(
      R"({"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false},"decoder":{"type":"ByteLevel"},"model":{"vocab":{)" +
          vocab + R"(},"merges":[]},"added_tokens":[)" + added(special, 0) + "," + added("<|im_end|>", 1) +
          "]}",
      "tokenizer.json");
}

// The text of ids; a special token in brackets.
std::string shown(const Tokenizer& tokens, const std::vector<int32_t>& ids) {
  std::string text;
  for (const int32_t id : ids) {
    const std::string token(tokens.token_bytes(id));
    text += tokens.is_special(id) ? "[" + token + "]" : token;
  }
  return text;
}

std::string encoded(const std::string& json, const std::vector<ChatMessage>& messages,
                    bool continues = false) {
  const auto tokens = tokenizer();
  return shown(*tokens, ChatFormat::from_json(json, "chat_format.json", tokens).encode(messages, continues));
}

const std::string kFormat = R"({"format": 1, "frames": {
  "start": {"user": "<|im_start|>u:", "system": "<|im_start|>s:"},
  "system": {"user": "/u:"},
  "user": {"answer": "<|im_end|>a:", "assistant": "<|im_end|>b:"},
  "assistant": {"user": "<|im_end|>u:"}},
  "trim": ["user"], "reasoning_end": "</think>"})";

void check_refused(const std::string& json, ErrorCode code, const std::string& reason) {
  CAPTURE(json);
  try {
    ChatFormat::from_json(json, "chat_format.json", tokenizer());
    FAIL("the file was accepted");
  } catch (const Error& error) {
    const std::string message = error.what();
    CAPTURE(message);
    CHECK(error.code() == code);
    CHECK(message.find("chat_format.json") == 0);
    CHECK(message.find(reason) != std::string::npos);
    CHECK(message.back() == '.');
  }
}

}  // namespace

TEST_CASE("a conversation is its messages with the frames of their roles between them") {
  CHECK(encoded(kFormat, {{"user", "hi"}}) == "[<|im_start|>]u:hi[<|im_end|>]a:");
  CHECK(encoded(kFormat, {{"system", "S"}, {"user", "hi"}, {"assistant", "yo"}, {"user", "?"}}) ==
        "[<|im_start|>]s:S/u:hi[<|im_end|>]b:yo[<|im_end|>]u:?[<|im_end|>]a:");
  CHECK(encoded(kFormat, {{"user", "hi"}}, true) == "[<|im_end|>]u:hi[<|im_end|>]a:");
}

TEST_CASE("special tokens in people's words are text, also where a frame would complete them") {
  CHECK(encoded(kFormat, {{"user", "<|im_end|>x<|im_start|"}}) ==
        "[<|im_start|>]u:<|im_end|>x<|im_start|[<|im_end|>]a:");
  const std::string split = R"({"format":1,"frames":{"start":{"user":"<|im_st"},"user":{"answer":"|>"},
    "assistant":{"user":""}}})";
  CHECK(encoded(split, {{"user", "art"}}) == "<|im_start|>");
  CHECK(encoded(split, {{"user", "art|>"}}) == "<|im_start|>|>");
}

TEST_CASE(
    "contents lose their white space, and earlier answers their reasoning, where the template does so") {
  CHECK(encoded(kFormat, {{"user", " \n\t\u00a0\u3000\x1c hi \u2028\u0085\n"}}) ==
        "[<|im_start|>]u:hi[<|im_end|>]a:");
  CHECK(encoded(kFormat, {{"user", " \n "}}) == "[<|im_start|>]u:[<|im_end|>]a:");
  CHECK(
      encoded(kFormat, {{"user", "q"}, {"assistant", "<think>a</think>b</think>\n\n c\n"}, {"user", "r"}}) ==
      "[<|im_start|>]u:q[<|im_end|>]b: c\n[<|im_end|>]u:r[<|im_end|>]a:");
}

TEST_CASE("what a format has no place for is refused") {
  const auto refused = [](const std::vector<ChatMessage>& messages, ErrorCode code) {
    try {
      encoded(kFormat, messages);
      FAIL("accepted");
    } catch (const Error& error) {
      CHECK(error.code() == code);
    }
  };
  refused({}, ErrorCode::kInvalidArgument);
  refused({{"tool", "x"}}, ErrorCode::kInvalidArgument);
  refused({{"start", "x"}}, ErrorCode::kInvalidArgument);
  refused({{"assistant", "x"}}, ErrorCode::kUnsupported);
  refused({{"user", "x"}, {"user", "y"}}, ErrorCode::kUnsupported);
  refused({{"user", "x"}, {"assistant", "y"}}, ErrorCode::kUnsupported);
}

TEST_CASE("a template that could not be written down says why when it is used") {
  const auto tokens = tokenizer();
  const ChatFormat format =
      ChatFormat::from_json(R"({"format": 1, "unusable": "writes the date"})", "chat_format.json", tokens);
  CHECK(!format.usable());
  const std::vector<ChatMessage> messages = {{"user", "x"}};
  CHECK_THROWS_WITH_AS(format.encode(messages, false),
                       "The model's chat template writes the date: render it yourself and encode it with "
                       "allmem_tokenize().",
                       Error);
}

TEST_CASE("without the file, ChatML's tokens mean ChatML") {
  const auto tokens = tokenizer();
  const std::vector<ChatMessage> messages = {{"system", "S"}, {"user", "hi"}};
  CHECK(shown(*tokens, ChatFormat::chatml(tokens)->encode(messages, true)) ==
        "[<|im_end|>]\n[<|im_start|>]system\nS[<|im_end|>]\n[<|im_start|>]user\nhi[<|im_end|>]\n"
        "[<|im_start|>]assistant\n");
  CHECK(!ChatFormat::chatml(tokenizer("<|begin|>")));
}

TEST_CASE("a damaged chat_format.json is refused with a sentence") {
  const ErrorCode bad = ErrorCode::kBadTokenizer;
  check_refused("", bad, "JSON");
  check_refused("[]", bad, "object");
  check_refused("{}", bad, "format");
  check_refused(R"({"format": "1"})", bad, "format");
  check_refused(R"({"format": 2})", ErrorCode::kUnsupported, "format 2");
  check_refused(R"({"format": 1})", bad, "frames");
  check_refused(R"({"format": 1, "frames": []})", bad, "frames");
  check_refused(R"({"format": 1, "frames": {}})", bad, "frames");
  check_refused(R"({"format": 1, "frames": {"tool": {}}})", bad, "role");
  check_refused(R"({"format": 1, "frames": {"user": 1}})", bad, "frames.user");
  check_refused(R"({"format": 1, "frames": {"user": {}, "start": {}, "user": {}}})", bad, "user twice");
  check_refused(R"({"format": 1, "frames": {"user": {"answer": "a", "answer": "b"}}})", bad, "answer twice");
  check_refused(R"({"format": 1, "frames": {"user": {"start": ""}}})", bad, "role");
  check_refused(R"({"format": 1, "frames": {"user": {"answer": null}}})", bad, "frames.user.answer");
  check_refused(R"({"format": 1, "unusable": ""})", bad, "unusable");
  check_refused(R"({"format": 1, "unusable": {}})", bad, "unusable");
  const std::string head = kFormat.substr(0, kFormat.find("\"trim\""));
  check_refused(head + R"("trim": "user"})", bad, "trim");
  check_refused(head + R"("trim": ["start"]})", bad, "trim");
  check_refused(head + R"("reasoning_end": 7})", bad, "reasoning_end");
  check_refused(R"({"format": 1, "frames": {"start": {"user": ")" + std::string((1 << 20) + 1, 'x') + "\"}}}",
                bad, "1 MiB");
}
