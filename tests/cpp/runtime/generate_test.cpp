// The generate loop over a model that says what the test tells it to: which tokens are read, and which text
// comes out when.
#include "runtime/generate.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "platform/error.h"

using namespace allmem;

namespace {

enum Id : int32_t { kA, kB, kC, kLead, kTail, kEnd, kVocab };  // kLead kTail: the two bytes of é

std::shared_ptr<const Tokenizer> tokenizer() {
  return Tokenizer::from_json(
      R"({"added_tokens":[{"id":5,"content":"<end>","single_word":false,"lstrip":false,
"rstrip":false,"normalized":false,"special":true}],"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false},
"decoder":{"type":"ByteLevel"},"model":{"vocab":{"a":0,"b":1,"c":2,"Ã":3,"©":4},"merges":[]}})",
      "tokenizer.json");
}

// A model whose most likely tokens are those of `script`, one after the other, and which remembers its input.
struct FakeModel {
  std::vector<int32_t> script;
  std::vector<int32_t> read = {};
  std::vector<size_t> calls = {};  // tokens of each call
  size_t said = 0;

  Forward forward() {
    return [this](std::span<const int32_t> ids, LogitsFor which, std::span<float> logits) {
      read.insert(read.end(), ids.begin(), ids.end());
      calls.push_back(ids.size());
      if (which == LogitsFor::kNone) return;
      std::fill(logits.begin(), logits.end(), 0.0f);
      if (said < script.size()) logits[static_cast<size_t>(script[said++])] = 1.0f;
    };
  }
};

struct Result {
  std::vector<std::string> pieces;
  std::string text;
  GenerateStats stats;
};

Result run(FakeModel& model, const GenerateOptions& options, std::vector<int32_t> prompt = {kC}) {
  Generator generator(model.forward(), kVocab, tokenizer(), std::move(prompt), options);
  Result result;
  while (const auto piece = generator.next()) {
    result.pieces.push_back(*piece);
    result.text += *piece;
  }
  CHECK_FALSE(generator.next());  // over is over
  result.stats = generator.stats();
  return result;
}

using Ids = std::vector<int32_t>;
using Pieces = std::vector<std::string>;

}  // namespace

TEST_CASE("text ends before a stop string, wherever tokens break it, and what it hid stays hidden") {
  FakeModel model{{kA, kB, kC, kA, kB, kA}};
  const Result result = run(model, {.stop = {"aba"}});
  CHECK(result.pieces == Pieces{"", "", "abc", "", "", ""});
  CHECK(result.stats.finish == FinishReason::kStopString);
  CHECK(model.read == Ids{kC, kA, kB, kC, kA, kB, kA});  // all that was said was read
  CHECK(result.stats.generated_tokens == 6);
}

TEST_CASE("of several stop strings the one that begins first counts") {
  FakeModel model{{kA, kA, kB, kC}};
  CHECK(run(model, {.stop = {"bc", "ab", "x"}}).text == "a");
}

TEST_CASE("held-back text and half a character come out last, in their order") {
  FakeModel model{{kB, kA, kLead}};
  const Result result = run(model, {.max_tokens = 3, .stop = {"ab"}});
  CHECK(result.pieces == Pieces{"b", "", "", "a\xEF\xBF\xBD"});
  CHECK(result.stats.finish == FinishReason::kMaxTokens);
}

TEST_CASE("a character of two tokens comes out whole, and a stop string may hold one") {
  FakeModel model{{kLead, kTail, kA}}, stopped{{kB, kLead, kTail, kA}};
  CHECK(run(model, {.max_tokens = 3}).pieces == Pieces{"", "é", "a"});
  CHECK(run(stopped, {.stop = {"é"}}).text == "b");
}

TEST_CASE("a stop token is neither shown nor read nor counted") {
  FakeModel model{{kA, kEnd, kB}};
  const Result result = run(model, {.stop_ids = {kEnd}});
  CHECK(result.text == "a");
  CHECK(result.stats.finish == FinishReason::kStopToken);
  CHECK(result.stats.generated_tokens == 1);
  CHECK(model.read == Ids{kC, kA});
}

TEST_CASE("no tokens wanted: the prompt is read, nothing is said") {
  FakeModel model{{kA}};
  const Result result = run(model, {.max_tokens = 0});
  CHECK(result.pieces.empty());
  CHECK(result.stats.finish == FinishReason::kMaxTokens);
  CHECK(model.read == Ids{kC});
}

TEST_CASE("a prompt is read in blocks, whatever its length") {
  for (const size_t length :
       {size_t{1}, kPrefillBlock - 1, kPrefillBlock, kPrefillBlock + 1, 3 * kPrefillBlock}) {
    FakeModel model{{}};
    const Ids prompt(length, kA);
    CHECK(run(model, {.max_tokens = 0}, prompt).stats.prompt_tokens == length);
    CHECK(model.read == prompt);
    CHECK(model.calls.size() == (length + kPrefillBlock - 1) / kPrefillBlock);
    CHECK(*std::ranges::max_element(model.calls) <= kPrefillBlock);
  }
}

TEST_CASE("a cancelled generation reads no further and ends with what it held back") {
  FakeModel model{{kA, kB}};
  Generator unread(model.forward(), kVocab, tokenizer(), Ids(300, kC), {});
  CHECK(unread.prefill());
  unread.cancel();
  CHECK_FALSE(unread.next());
  CHECK(unread.stats().finish == FinishReason::kCancelled);
  CHECK(unread.stats().prompt_tokens == kPrefillBlock);
  CHECK(model.read.size() == kPrefillBlock);

  Generator speaking(model.forward(), kVocab, tokenizer(), {kC}, {.stop = {"ab"}});
  CHECK(speaking.next() == "");
  speaking.cancel();
  CHECK(speaking.next() == "a");
  CHECK_FALSE(speaking.next());
  CHECK(speaking.stats().finish == FinishReason::kCancelled);
}

TEST_CASE("a token that the tokenizer does not know is never said") {
  FakeModel model{{kVocab + 1}};  // the most likely of a model with a padded vocabulary
  Generator generator(model.forward(), kVocab + 2, tokenizer(), {kC}, {.max_tokens = 1});
  CHECK(generator.next() == "a");
}

TEST_CASE("prompts and options out of range are refused") {
  FakeModel model{{kA}};
  const auto refused = [&](Ids prompt, const GenerateOptions& options) {
    CHECK_THROWS_AS(Generator(model.forward(), kVocab, tokenizer(), std::move(prompt), options), Error);
  };
  refused({}, {});
  refused({-1}, {});
  refused({kA, kVocab}, {});
  refused({INT32_MAX}, {});
  refused({kA}, {.max_tokens = -1});
  refused({kA}, {.stop = {"b", ""}});
  refused({kA}, {.sampling = {.temperature = -1.0f}});
  CHECK(model.read.empty());
}
