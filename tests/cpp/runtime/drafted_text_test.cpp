// What a text promises that is written with drafts, right ones and wrong ones: it is the text without them,
// and at every return it stands where that one does after as many tokens.
#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <random>

#include "platform/error.h"
#include "runtime/generate.h"
#include "texts.h"
#include "tiny_session.h"

using namespace allmem;
using namespace allmem::test;

namespace {

using Ids = std::vector<int32_t>;

// A model whose logits depend on the last tokens read, with a token that no tokenizer knows; and drafts of
// what is most likely next, every third token of which is any.
class DraftedModel : public Speculation {
 public:
  Forward forward() {
    return [this](std::span<const int32_t> ids, LogitsFor, std::span<float> logits, GoOn) {
      read_.insert(read_.end(), ids.begin(), ids.end());
      fill(read_, logits);
      return ids.size();
    };
  }

  size_t draft(int32_t next, std::span<int32_t> room) override {
    ++asked_;
    Ids text = read_;
    text.push_back(next);
    std::vector<float> logits(kVocab + 1);
    for (int32_t& id : room) {
      fill(text, logits);
      id = static_cast<int32_t>(std::ranges::max_element(logits) - logits.begin());
      if (random_() % 3 == 0) id = static_cast<int32_t>(random_() % (kVocab + 1));
      text.push_back(id);
    }
    return random_() % (room.size() + 1);
  }

  void read(std::span<const int32_t> ids, Accept accept) override {
    CHECK(ids.size() >= 2);
    CHECK(ids.size() <= kMostSpeculative);
    for (const int32_t id : ids) CHECK(id != kVocab);
    for (const int32_t id : ids) CHECK(id != never_);
    Ids text = read_;
    std::vector<float> rows(kMostSpeculative * (kVocab + 1));
    for (size_t i = 0; i < ids.size(); ++i) {
      text.push_back(ids[i]);
      fill(text, std::span(rows).subspan(i * (kVocab + 1), kVocab + 1));
    }
    const size_t right = accept(rows);
    CHECK(right >= 1);
    read_.insert(read_.end(), ids.begin(), ids.begin() + static_cast<ptrdiff_t>(right));
  }

  const Ids& tokens() const { return read_; }
  size_t asked() const { return asked_; }
  void never(int32_t id) { never_ = id; }

 private:
  static void fill(std::span<const int32_t> text, std::span<float> logits) {
    unsigned hash = 17;
    for (const int32_t id : text.last(std::min<size_t>(text.size(), 4)))
      hash = hash * 31 + static_cast<unsigned>(id);
    std::mt19937 random(hash);
    for (float& logit : logits) logit = static_cast<float>(random() % 1000) * 0.003f;
  }

  Ids read_;
  std::mt19937 random_{3};
  size_t asked_ = 0;
  int32_t never_ = -1;
};

struct Plain {
  std::string text;
  Ids read;
  GenerateStats stats;
  std::map<size_t, WipedVector<std::byte>> saved;  // by generated tokens
};

WipedVector<std::byte> saved(const Generator& generator) {
  ByteWriter bytes;
  generator.save(bytes);
  return bytes.bytes();
}

Generator begun(const GenerateOptions& options) {
  return {kVocab + 1, letters(), Ids{kC, kA, kEnd}, options};
}

Plain plain(const GenerateOptions& options) {
  DraftedModel model;
  Generator generator = begun(options);
  Plain result;
  while (const auto piece = generator.next(model.forward())) {
    result.text += *piece;
    if (!generator.over()) result.saved[generator.stats().generated_tokens] = saved(generator);
  }
  result.read = model.tokens();
  result.stats = generator.stats();
  return result;
}

std::vector<GenerateOptions> many_options() {
  std::vector<GenerateOptions> all;
  for (uint64_t seed = 0; seed < 12; ++seed) {
    const SamplerOptions greedy{.repetition_penalty = seed % 2 == 0 ? 1.0f : 1.3f, .repetition_window = 5};
    const SamplerOptions drawn{.temperature = 0.4f,
                               .top_k = seed % 3 == 0 ? 3 : 0,
                               .top_p = seed % 2 == 0 ? 1.0f : 0.9f,
                               .repetition_penalty = 1.1f,
                               .seed = seed,
                               .logit_bias = {{kB, 0.2f}}};
    for (const SamplerOptions& sampling : {greedy, drawn}) {
      all.push_back({.sampling = sampling, .max_tokens = static_cast<int64_t>(40 + seed)});
      all.push_back({.sampling = sampling, .max_tokens = 100, .stop = {"bca", "éa", "aab", "ccc"}});
      all.push_back({.sampling = sampling, .max_tokens = 100, .stop = {"never there"}, .stop_ids = {kEnd}});
    }
    all.push_back({.sampling = drawn, .max_tokens = static_cast<int64_t>(seed)});
  }
  return all;
}

}  // namespace

TEST_CASE("with drafts a text is the same, token for token, and so is all that is saved of it") {
  size_t drafted = 0, accepted = 0;
  std::map<FinishReason, size_t> finished;
  for (const GenerateOptions& options : many_options()) {
    const Plain expected = plain(options);
    DraftedModel model;
    if (!options.stop_ids.empty()) model.never(kEnd);
    Generator generator = begun(options);
    std::string text;
    while (const auto piece = generator.next(model.forward(), {}, &model)) {
      text += *piece;
      const GenerateStats& stats = generator.stats();
      CHECK(model.tokens().size() == stats.prompt_tokens + stats.generated_tokens);
      if (!generator.over()) CHECK(saved(generator) == expected.saved.at(stats.generated_tokens));
    }
    CHECK(text == expected.text);
    CHECK(model.tokens() == expected.read);
    CHECK(generator.stats().finish == expected.stats.finish);
    CHECK(generator.stats().generated_tokens == expected.stats.generated_tokens);
    drafted += generator.stats().drafted_tokens;
    accepted += generator.stats().accepted_tokens;
    ++finished[generator.stats().finish];
  }
  CHECK(accepted > 300);
  CHECK(accepted < drafted);
  for (const FinishReason reason :
       {FinishReason::kStopString, FinishReason::kStopToken, FinishReason::kMaxTokens})
    CHECK(finished[reason] > 5);
}

TEST_CASE("a copy and a saved text go on alike with drafts and without, wherever they are taken") {
  for (const GenerateOptions& options : many_options()) {
    const std::string expected = plain(options).text;
    DraftedModel model;
    Generator generator = begun(options);
    std::string text;
    while (true) {
      const std::optional<std::string> piece = generator.next(model.forward(), {}, &model);
      if (!piece) break;
      text += *piece;
      if (generator.over()) continue;
      const WipedVector<std::byte> bytes = saved(generator);
      ByteReader reader(bytes);
      Generator again(reader, kVocab + 1, letters()), copy = generator;
      if (!options.sampling.logit_bias.empty()) again = copy;  // which a writer saves at the end
      for (const bool drafts : {false, true}) {
        for (const Generator* from : {&again, &copy}) {
          Generator each = *from;
          DraftedModel its_own = model;
          std::string rest;
          while (const auto more = each.next(its_own.forward(), {}, drafts ? &its_own : nullptr))
            rest += *more;
          CHECK(text + rest == expected);
        }
      }
    }
    CHECK(text == expected);
  }
}

TEST_CASE("who looks on or filters is called token by token, also in the middle of a text with drafts") {
  const GenerateOptions options{.sampling = {.temperature = 0.4f, .seed = 3}, .max_tokens = 60};
  const Plain expected = plain(options);
  for (const bool filters : {false, true}) {
    for (size_t first = 0; first < 8; ++first) {
      DraftedModel model;
      Generator generator = begun(options);
      std::string text;
      for (size_t step = 0; step < first; ++step) text += *generator.next(model.forward(), {}, &model);
      const size_t before = generator.stats().generated_tokens, asked = model.asked();
      Ids told;
      DrawHooks hooks;
      if (filters) {
        hooks.filter = [&](int32_t last, std::span<uint32_t>) { told.push_back(last); };
      } else {
        hooks.drawn = [&](TokenScore token, std::span<const TokenScore>) { told.push_back(token.id); };
      }
      while (const auto piece = generator.next(model.forward(), hooks, &model)) text += *piece;
      CHECK(text == expected.text);
      CHECK(model.asked() == asked);
      const auto begin = expected.read.begin() + static_cast<ptrdiff_t>(3 + before);
      Ids wanted(begin, expected.read.end());
      if (filters) {  // the token before each draw, of which the last one is not drawn for want of room
        wanted.insert(wanted.begin(), before == 0 ? -1 : *(begin - 1));
        wanted.pop_back();
      }
      CHECK(told == wanted);
    }
  }
}

TEST_CASE("a text that is not to speculate does not") {
  DraftedModel model;
  Generator generator = begun({.max_tokens = 30, .speculate = false});
  std::string text;
  while (const auto piece = generator.next(model.forward(), {}, &model)) text += *piece;
  CHECK(model.asked() == 0);
  CHECK(text == plain({.max_tokens = 30}).text);
}

namespace {

// Drafts from a text that is known, of which every fourth token is wrong.
class KnownText : public DraftSource {
 public:
  explicit KnownText(Ids text) : text_(std::move(text)) {}
  void read(std::span<const int32_t> ids) override { read_ += ids.size(); }
  size_t draft(int32_t, std::span<int32_t> room) override {
    size_t count = 0;
    for (size_t at = read_ + 1; count < room.size() && at < text_.size(); ++at)
      room[count++] = (at * 7 + read_) % 4 == 0 ? 0 : text_[at];
    return count;
  }
  void forget() override { read_ = 0; }
  std::unique_ptr<DraftSource> clone() const override { return std::make_unique<KnownText>(*this); }

 private:
  Ids text_;
  size_t read_ = 0;
};

struct Texts {
  std::shared_ptr<const Model> model;
  std::shared_ptr<const Tokenizer> tokenizer = letters();
  Ids prompt = random_ids(40, 6, 7), later = random_ids(20, 6, 8);
  GenerateOptions options{
      .sampling = {.temperature = 1.2f, .top_p = 0.95f, .repetition_penalty = 1.3f, .seed = 11},
      .max_tokens = 90,
      .stop = {"never there"}};

  explicit Texts(unsigned bits = 8) {
    TinyConfig config = quantised(bits);
    config.chunk = config.window = 40;
    model = load(TinyModel(config));
  }
  Writer writer() const { return Writer(std::make_unique<Session>(model, SessionOptions{.threads = 1})); }
  // The prompt and what is written after it.
  Ids known() const {
    Writer first = writer();
    first.start(tokenizer, prompt, options);
    Ids text = prompt;
    const DrawHooks hooks{
        .drawn = [&](TokenScore token, std::span<const TokenScore>) { text.push_back(token.id); }};
    while (first.next(hooks)) {
    }
    return text;
  }
};

}  // namespace

TEST_CASE("with drafts a session's snapshots are those of the text without, at every return") {
  for (const unsigned bits : {4u, 8u}) {
    const Texts texts(bits);
    Writer expected = texts.writer(), drafted = texts.writer();
    drafted.speculate_with(std::make_unique<KnownText>(texts.known()));
    for (Writer* each : {&expected, &drafted}) each->start(texts.tokenizer, texts.prompt, texts.options);
    std::string text, expected_text;
    bool equal = true;
    while (true) {
      const auto piece = drafted.next();
      text += piece.value_or("");
      while (expected.unfinished() && expected.session().position() < drafted.session().position())
        expected_text += expected.next().value_or("");
      if (!piece) break;
      if (!drafted.unfinished()) continue;
      equal = equal && saved(drafted, "") == saved(expected, "");
    }
    CHECK(equal);
    expected_text += finish(expected);
    CHECK(text == expected_text);
    CHECK(drafted.stats()->finish == expected.stats()->finish);
    CHECK(drafted.stats()->accepted_tokens > 30);
    CHECK(drafted.stats()->drafted_tokens > drafted.stats()->accepted_tokens);
    CHECK(saved(drafted, "") == saved(expected, ""));
  }
}

TEST_CASE("a text with drafts goes on bit for bit from wherever it is left: loaded, copied, undone") {
  const Texts texts;
  const Ids known = texts.known();
  const auto writer = [&] {
    Writer w = texts.writer();
    w.speculate_with(std::make_unique<KnownText>(known));
    return w.clone();
  };
  const auto after = [&](Writer& w) {
    std::vector<float> logits(texts.later.size() * 50);
    w.read(texts.later, LogitsFor::kAll, logits);
    return logits;
  };
  Writer whole = texts.writer();
  whole.start(texts.tokenizer, texts.prompt, texts.options);
  const std::string expected = finish(whole);
  const std::vector<float> expected_after = after(whole);
  const auto stopped = writer();
  stopped->start(texts.tokenizer, texts.prompt, texts.options);
  std::string text;
  size_t steps = 0;
  for (; stopped->unfinished(); ++steps) {
    CAPTURE(steps);
    stopped->mark(0);
    const auto loaded = writer(), clone = stopped->clone();
    load_snapshot(*loaded, texts.tokenizer, saved(*stopped, ""));
    const std::string left = finish(*stopped);
    CHECK(text + left == expected);
    REQUIRE(stopped->undo());
    for (Writer* each : {loaded.get(), clone.get()}) {
      CHECK(finish(*each) == left);
      CHECK(after(*each) == expected_after);
    }
    KnownText again(known);  // its own has read on
    again.read(std::span(known).first(static_cast<size_t>(stopped->session().position())));
    stopped->speculate_with(again.clone());
    text += stopped->next().value_or("");
  }
  CHECK(text == expected);
  CHECK(after(*stopped) == expected_after);
  CHECK(steps < 70);  // of 90 tokens
}

TEST_CASE("small models do not speculate, and others look up what was read by whichever call") {
  const Texts texts;
  Writer none = texts.writer(), some = texts.writer();
  const Ids page = random_ids(60, 6, 5);
  GenerateOptions options = texts.options;
  options.sampling = {};
  for (int32_t id = 6; id < 50; ++id) options.sampling.logit_bias.push_back({id, -100.0f});
  some.speculate_with(std::make_unique<NgramDrafts>());
  for (Writer* each : {&none, &some}) {
    each->read(page, LogitsFor::kLast, {});
    each->start(texts.tokenizer, page, options);
  }
  CHECK(finish(some) == finish(none));
  CHECK(none.stats()->drafted_tokens == 0);
  CHECK(some.stats()->drafted_tokens > 0);
  some.reset();
  some.start(texts.tokenizer, page, options);
  some.prefill();
  Batch batch(texts.model, {.threads = 1});
  Writer::TextItem item{.writer = &some, .hooks = nullptr};
  Writer::next(batch, {&item, 1});
  CHECK(some.stats()->generated_tokens == 1);
}
