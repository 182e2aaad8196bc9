// The generate loop over a model that says what the test tells it to: which tokens are read, and which text
// comes out when.
#include "runtime/generate.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "platform/error.h"
#include "texts.h"

using namespace allmem;
using namespace allmem::test;

namespace {

constexpr size_t kBlock = 128;

// A model whose most likely tokens are those of `script`, one after the other, and which remembers its input.
struct FakeModel {
  std::vector<int32_t> script;
  std::vector<int32_t> read = {};
  std::vector<size_t> blocks = {};  // tokens of each
  size_t said = 0;

  Forward forward() {
    return [this](std::span<const int32_t> ids, LogitsFor which, std::span<float> logits, GoOn go_on) {
      CHECK(which == LogitsFor::kLast);
      return in_blocks(ids.size(), kBlock, go_on, [&](size_t begin, size_t count) {
        const auto block = ids.subspan(begin, count);
        read.insert(read.end(), block.begin(), block.end());
        blocks.push_back(count);
        if (begin + count < ids.size()) return;
        std::fill(logits.begin(), logits.end(), 0.0f);
        if (said < script.size()) logits[static_cast<size_t>(script[said++])] = 1.0f;
      });
    };
  }
};

struct Result {
  std::vector<std::string> pieces;
  std::string text;
  GenerateStats stats;
};

Result run(FakeModel& model, const GenerateOptions& options, std::vector<int32_t> prompt = {kC}) {
  Generator generator(kVocab, letters(), prompt, options);
  const Forward forward = model.forward();
  Result result;
  while (const auto piece = generator.next(forward)) {
    result.pieces.push_back(*piece);
    result.text += *piece;
  }
  CHECK_FALSE(generator.next(forward));  // over is over
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

TEST_CASE("a text is held back exactly where it could become a stop string, however it repeats itself") {
  std::mt19937 random(3);
  const auto word = [&](size_t longest) {
    std::string letters(1 + random() % longest, 'a');
    for (char& letter : letters) letter = static_cast<char>('a' + random() % 2);
    return letters;
  };
  for (int round = 0; round < 2000; ++round) {
    const std::vector<std::string> stops = {word(7), word(7)};
    StopFilter filter(stops);
    std::string text, shown;
    while (!filter.stopped() && text.size() < 40) {
      const std::string more = word(3);
      text += more;
      shown += filter.push(more);
      size_t expected = text.size();
      for (size_t begin = text.size();
           begin-- > 0;) {  // the first place where a stop string is, or may begin
        const std::string_view rest = std::string_view(text).substr(begin);
        const auto is_there = [&](const std::string& stop) { return rest.starts_with(stop); };
        const auto may_be = [&](const std::string& stop) { return stop.starts_with(rest); };
        const bool counts =
            filter.stopped() ? std::ranges::any_of(stops, is_there) : std::ranges::any_of(stops, may_be);
        if (counts) expected = begin;
      }
      REQUIRE(shown == text.substr(0, expected));
    }
    const bool has_one = std::ranges::any_of(
        stops, [&](const std::string& stop) { return text.find(stop) != std::string::npos; });
    REQUIRE(filter.stopped() == has_one);
  }
}

TEST_CASE("the longest stop strings are looked for in no time") {
  const std::vector<std::string> stops(kMaxStops, std::string(kMaxStopBytes, 'a'));
  StopFilter filter(stops);
  const std::string almost(kMaxStopBytes - 1, 'a');
  CHECK(filter.push(almost).empty());
  for (int i = 0; i < 3; ++i) {
    CHECK(filter.push("b") == almost + "b");
    CHECK(filter.push(almost).empty());
  }
  CHECK(filter.push("ab").empty());
  CHECK(filter.stopped());
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

TEST_CASE("a stop token bears no repetition penalty, however many turns it has ended") {
  FakeModel model{{kA, kEnd}};
  // Penalised, the stop token's logit of 1 would be 0.1, and c's 0.5 the largest.
  const GenerateOptions options{.sampling = {.repetition_penalty = 10.0f, .logit_bias = {{kC, 0.5f}}},
                                .max_tokens = 3,
                                .stop_ids = {kEnd}};
  const Result result = run(model, options, {kEnd, kB, kEnd});
  CHECK(result.text == "a");
  CHECK(result.stats.finish == FinishReason::kStopToken);
}

TEST_CASE("a stop text that is a special token ends the text where the model writes that token") {
  FakeModel model{{kA, kEnd, kB}};
  const Result result = run(model, {.stop = {"<end>", "never there"}});
  CHECK(result.text == "a");
  CHECK(result.stats.finish == FinishReason::kStopToken);
  CHECK(model.read == Ids{kC, kA});
}

TEST_CASE("who looks on is told each token with the model's own log-probabilities") {
  FakeModel model{{kA, kB, kEnd}};
  struct Seen {
    TokenScore token;
    std::vector<TokenScore> best;
  };
  std::vector<Seen> seen;
  const DrawHooks hooks{.drawn =
                            [&](TokenScore token, std::span<const TokenScore> best) {
                              seen.push_back({token, {best.begin(), best.end()}});
                            },
                        .best = 2};
  // A bias of -5 makes `a` and `b` the least likely: the log-probabilities are those from before it.
  const GenerateOptions options{
      .sampling = {.logit_bias = {{kA, -5.0f}, {kB, -5.0f}}}, .max_tokens = 2, .stop_ids = {kEnd}};
  Generator generator(kVocab, letters(), Ids{kC}, options);
  while (generator.next(model.forward(), hooks)) {
  }
  REQUIRE(seen.size() == 2);
  // One logit of 1 and five of 0: log(e + 5) below.
  const double total = std::log(std::exp(1.0) + 5.0);
  constexpr double kRounding = 4 * 0x1p-24;  // a float of size 2 at most, rounded once
  CHECK(seen[0].token.id == kC);
  CHECK(std::abs(seen[0].token.logprob - (0.0 - total)) < kRounding);
  REQUIRE(seen[0].best.size() == 2);
  CHECK(seen[0].best[0].id == kA);
  CHECK(std::abs(seen[0].best[0].logprob - (1.0 - total)) < kRounding);
  CHECK(seen[0].best[1].id == kB);  // of equals the lowest id
  CHECK(seen[1].best[0].id == kB);
}

TEST_CASE("a filter has the last word on each token, and the text ends where it leaves none") {
  FakeModel model{{kA, kA, kA}};
  int draws = 0;
  const DrawHooks hooks{.filter = [&](int32_t last, std::span<uint32_t> allowed) {
    CHECK(last == (draws == 0 ? -1 : kB));
    REQUIRE(allowed.size() == 1);
    CHECK(allowed[0] == ~uint32_t{0});
    allowed[0] = draws++ < 2 ? 1u << kB : 0;
  }};
  Generator generator(kVocab, letters(), Ids{kC}, {});
  std::string text;
  while (const auto piece = generator.next(model.forward(), hooks)) text += *piece;
  CHECK(text == "bb");
  CHECK(generator.stats().finish == FinishReason::kNoToken);
  CHECK(model.read == Ids{kC, kB, kB});
}

TEST_CASE("no tokens wanted: the prompt is read, nothing is said") {
  FakeModel model{{kA}};
  const Result result = run(model, {.max_tokens = 0});
  CHECK(result.pieces.empty());
  CHECK(result.stats.finish == FinishReason::kMaxTokens);
  CHECK(model.read == Ids{kC});
}

TEST_CASE("a prompt is read in blocks, whatever its length") {
  for (const size_t length : {size_t{1}, kBlock - 1, kBlock, kBlock + 1, 3 * kBlock}) {
    FakeModel model{{}};
    const Ids prompt(length, kA);
    CHECK(run(model, {.max_tokens = 0}, prompt).stats.prompt_tokens == length);
    CHECK(model.read == prompt);
    CHECK(model.blocks.size() == (length + kBlock - 1) / kBlock);
    CHECK(*std::ranges::max_element(model.blocks) <= kBlock);
  }
}

TEST_CASE(
    "a prompt is left where one says so or throws between two blocks, with figures that are up to date") {
  FakeModel model{{kA}};
  const Ids prompt(2 * kBlock + 5, kC);
  Generator generator(kVocab, letters(), prompt, {});
  const auto stop_at_once = [&](size_t read) {
    CHECK(read == kBlock);
    CHECK(generator.stats().prompt_tokens == kBlock);
    CHECK(generator.stats().prompt_left == kBlock + 5);
    return false;
  };
  CHECK_FALSE(generator.prefill(model.forward(), stop_at_once));
  CHECK(model.read == Ids(kBlock, kC));
  const auto give_up = [](size_t) -> bool { throw Error(ErrorCode::kIo, "given up."); };
  CHECK_THROWS_AS(generator.prefill(model.forward(), give_up), Error);
  CHECK(generator.stats().prompt_left == 5);
  CHECK(generator.prefill(model.forward()));
  CHECK(model.read == prompt);
  CHECK(generator.next(model.forward()) == "a");
}

TEST_CASE("a copy and a saved one go on as the original, wherever they are taken") {
  const GenerateOptions options{.sampling = {.temperature = 1.5f, .repetition_penalty = 1.2f, .seed = 5},
                                .max_tokens = 40,
                                .stop = {"abcabc", "never there"}};
  const Ids prompt(kBlock + 3, kC);
  const Ids script = {kLead, kA, kB, kC, kTail, kA, kA, kB, kB, kLead, kC};
  const std::string expected = [&] {
    FakeModel model{script};
    return run(model, options, prompt).text;
  }();
  CHECK(expected.size() > 20);
  for (size_t stopped_at = 0; stopped_at < 42; ++stopped_at) {
    CAPTURE(stopped_at);
    FakeModel model{script};
    Generator generator(kVocab, letters(), prompt, options);
    std::string text;
    if (stopped_at > 0) CHECK_FALSE(generator.prefill(model.forward(), [](size_t) { return false; }));
    for (size_t step = 1; step < stopped_at; ++step) text += generator.next(model.forward()).value_or("");
    if (generator.over()) break;
    ByteWriter saved;
    generator.save(saved);
    ByteReader reader(saved.bytes());
    Generator again(reader, kVocab, letters()), copy = generator;
    CHECK(reader.at_end());
    for (Generator* each : {&again, &copy}) {
      FakeModel its_own = model;
      std::string rest;
      while (const auto piece = each->next(its_own.forward())) rest += *piece;
      CHECK(text + rest == expected);
      CHECK(each->stats().prompt_tokens == prompt.size());
    }
  }
}

TEST_CASE("of stop tokens only which they are counts: not their order, nor how often, nor others' ids") {
  const auto saved = [](const Ids& stop_ids) {
    ByteWriter bytes;
    Generator(kVocab, letters(), Ids{kC}, {.stop_ids = stop_ids}).save(bytes);
    return bytes.bytes();
  };
  CHECK(saved({kEnd, -1, kB, kVocab, kEnd, 1 << 30, kB}) == saved({kB, kEnd}));
  // Memories of earlier versions have them in any order.
  WipedVector<std::byte> bytes = saved({kB, kEnd});
  const Ids sorted{kB, kEnd}, reversed{kEnd, kB};
  const auto kept = std::as_bytes(std::span(sorted));
  const auto at = std::search(bytes.begin(), bytes.end(), kept.begin(), kept.end());
  REQUIRE(at != bytes.end());
  std::ranges::copy(std::as_bytes(std::span(reversed)), at);
  for (const int32_t end : sorted) {
    FakeModel model{{kA, end}};
    ByteReader reader(bytes);
    Generator generator(reader, kVocab, letters());
    while (generator.next(model.forward())) {
    }
    CHECK(generator.stats().finish == FinishReason::kStopToken);
  }
}

TEST_CASE("a saved generation that cannot be right is refused") {
  FakeModel model{{kA, kLead}};
  Generator generator(kVocab, letters(), Ids{kC}, {.stop = {"ab"}});
  generator.next(model.forward());
  ByteWriter saved;
  generator.save(saved);
  const auto code = [&](std::span<const std::byte> bytes) {
    try {
      ByteReader reader(bytes);
      Generator(reader, kVocab, letters());
    } catch (const Error& error) {
      return error.code();
    }
    return ErrorCode::kIo;
  };
  CHECK(code(saved.bytes()) == ErrorCode::kIo);  // the right one
  for (size_t size = 0; size < saved.bytes().size(); ++size) {
    CHECK(code(std::span(saved.bytes()).first(size)) == ErrorCode::kBadSnapshot);
  }
  // Whatever a byte says, it is read or refused, and what is read can go on.
  for (size_t i = 0; i < saved.bytes().size(); ++i) {
    for (const uint8_t value : {0x00, 0x01, 0x7F, 0x80, 0xFF}) {
      auto bytes = saved.bytes();
      bytes[i] = std::byte{value};
      try {
        ByteReader reader(bytes);
        Generator read(reader, kVocab, letters());
        FakeModel its_own = model;
        read.next(its_own.forward());
      } catch (const Error& error) {
        // A logit that is no number shows when it is to be sampled from.
        CHECK((error.code() == ErrorCode::kBadSnapshot || error.code() == ErrorCode::kBadModel));
      }
    }
  }
}

TEST_CASE(
    "a saved generation holds back what is the beginning of a stop string, and stop strings have bounds") {
  FakeModel model{{kA, kA}};
  Generator generator(kVocab, letters(), Ids{kC}, {.stop = {"ab"}});
  CHECK(generator.next(model.forward()) == "");
  ByteWriter saved, filter;
  generator.save(saved);
  filter.number(uint64_t{1});
  filter.text("ab");
  filter.text("a");
  const auto &all = saved.bytes(), &part = filter.bytes();
  const auto at = std::search(all.begin(), all.end(), part.begin(), part.end());
  REQUIRE(at != all.end());
  const auto read = [&](const std::vector<std::string>& stops, std::string_view pending) {
    ByteWriter other;
    other.number(uint64_t{stops.size()});
    for (const std::string& stop : stops) other.text(stop);
    other.text(pending);
    std::vector<std::byte> bytes(all.begin(), at);
    bytes.insert(bytes.end(), other.bytes().begin(), other.bytes().end());
    bytes.insert(bytes.end(), at + static_cast<ptrdiff_t>(filter.bytes().size()), saved.bytes().end());
    ByteReader reader(bytes);
    Generator(reader, kVocab, letters());
  };
  CHECK_NOTHROW(read({"ab"}, "a"));
  CHECK_NOTHROW(read(std::vector<std::string>(kMaxStops, std::string(kMaxStopBytes, 'a')), "aaaa"));
  CHECK_THROWS_AS(read({"ab"}, "c"), Error);
  CHECK_THROWS_AS(read({"ab"}, "ca"), Error);
  CHECK_THROWS_AS(read({"ab"}, "ab"), Error);
  CHECK_THROWS_AS(read({}, "a"), Error);
  CHECK_THROWS_AS(read({std::string(kMaxStopBytes + 1, 'a')}, "a"), Error);
  CHECK_THROWS_AS(read(std::vector<std::string>(kMaxStops + 1, "ab"), "a"), Error);
}

TEST_CASE("a token that the tokenizer does not know is never said") {
  FakeModel model{{kVocab + 1}};  // the most likely of a model with a padded vocabulary
  Generator generator(kVocab + 2, letters(), Ids{kC}, {.max_tokens = 1});
  CHECK(generator.next(model.forward()) == "a");
}

TEST_CASE("prompts and options out of range are refused") {
  const auto refused = [](const Ids& prompt, const GenerateOptions& options) {
    CHECK_THROWS_AS(Generator(kVocab, letters(), prompt, options), Error);
  };
  refused({}, {});
  refused({-1}, {});
  refused({kA, kVocab}, {});
  refused({INT32_MAX}, {});
  refused({kA}, {.max_tokens = -1});
  refused({kA}, {.stop = {"b", ""}});
  refused({kA}, {.stop = {std::string(kMaxStopBytes + 1, 'b')}});
  refused({kA}, {.stop = std::vector<std::string>(kMaxStops + 1, "b")});
  refused({kA}, {.sampling = {.temperature = -1.0f}});
}
