// What a writer promises: a text goes on bit for bit from wherever it was left, copied or saved; marks lead
// back; wiping leaves nothing in memory.
#include "runtime/writer.h"

#include <doctest/doctest.h>

#include <cstring>
#include <limits>

#include "memory_search.h"
#include "platform/error.h"
#include "texts.h"
#include "tiny_session.h"

using namespace allmem;
using namespace allmem::test;

namespace {

std::shared_ptr<const Model> tiny_model(unsigned seed) {
  TinyConfig config;
  config.seed = seed;
  return load(TinyModel(config));
}

struct Fixture {
  std::shared_ptr<const Model> model = tiny_model(1);
  std::shared_ptr<const Tokenizer> tokenizer = letters();
  std::vector<int32_t> prompt = random_ids(150, 37, 7), later = random_ids(20, 37, 8);
  GenerateOptions options{
      .sampling = {.temperature = 1.2f, .top_p = 0.95f, .repetition_penalty = 1.3f, .seed = 11},
      .max_tokens = 30,
      .stop = {"never there"}};

  Writer writer() const { return Writer(std::make_unique<Session>(model, SessionOptions{.threads = 1})); }
  // The logits of everything read after the text.
  std::vector<float> after(Writer& writer) const {
    std::vector<float> logits(later.size() * 37);
    writer.read(later, LogitsFor::kAll, logits);
    return logits;
  }
};

}  // namespace

TEST_CASE_FIXTURE(Fixture, "a logit bias goes on in a snapshot, which is as ever without one") {
  const std::vector<std::byte> plain = saved(writer(), "note");
  options.sampling.logit_bias = {{0, 50.0f}, {1, -std::numeric_limits<float>::infinity()}};
  Writer whole = writer();
  whole.set_sampling({.logit_bias = {{2, 3.0f}}});
  CHECK(saved(whole, "note").size() == plain.size() + 16);  // a count, an id, a bias
  whole.start(tokenizer, prompt, options);
  CHECK(whole.next() == "a");
  Writer later = writer();
  load_snapshot(later, tokenizer, saved(whole, "note"));
  CHECK(saved(later, "note") == saved(whole, "note"));
  CHECK(finish(later) == finish(whole));
}

TEST_CASE_FIXTURE(Fixture, "a text goes on bit for bit from wherever it is left: loaded, copied, undone") {
  Writer whole = writer();
  whole.start(tokenizer, prompt, options);
  const std::string expected = finish(whole);
  const std::vector<float> expected_after = after(whole);
  CHECK(expected.size() > 20);

  Writer stopped = writer();
  stopped.start(tokenizer, prompt, options);
  std::string text;
  CHECK_FALSE(stopped.prefill([](size_t) { return false; }));  // the prompt has two blocks
  for (int step = 0; stopped.unfinished(); ++step) {
    CAPTURE(step);
    stopped.mark(0);
    Writer loaded = writer();
    loaded.read(later, LogitsFor::kNone, {});  // no trace of it may be left
    CHECK(load_snapshot(loaded, tokenizer, saved(stopped, "note")).unfinished);
    const std::unique_ptr<Writer> clone = stopped.clone();
    const std::string left = finish(stopped);
    after(stopped);
    CHECK(text + left == expected);
    REQUIRE(stopped.undo());
    for (Writer* each : {&loaded, clone.get()}) {
      CHECK(finish(*each) == left);
      CHECK(after(*each) == expected_after);
    }
    text += stopped.next().value_or("");
  }
  CHECK(text == expected);
  CHECK(after(stopped) == expected_after);
}

TEST_CASE_FIXTURE(Fixture, "draws by hand go on from a snapshot with the same tokens") {
  const auto draw = [&](Writer& writer, int count) {
    std::vector<int32_t> drawn;
    for (int i = 0; i < count; ++i) {
      drawn.push_back(writer.sample(tokenizer.get()));
      writer.read({&drawn.back(), 1}, LogitsFor::kLast, {});
    }
    return drawn;
  };
  Writer first = writer();
  CHECK_THROWS_AS(first.sample(nullptr), Error);
  first.set_sampling(options.sampling);
  first.read(prompt, LogitsFor::kLast, {});
  draw(first, 5);
  const std::vector<std::byte> bytes = saved(first, "note");
  const std::vector<int32_t> expected = draw(first, 30);
  CHECK(std::ranges::max(expected) < 6);  // no token that the tokenizer does not know

  Writer second = writer();
  load_snapshot(second, tokenizer, bytes);
  CHECK(saved(second, "note") == bytes);
  CHECK(draw(second, 30) == expected);
  CHECK(saved(second, "note") == saved(first, "note"));
}

TEST_CASE_FIXTURE(Fixture,
                  "the last row of what was read is there to sample from, however it was asked for") {
  std::vector<float> all(prompt.size() * 37), last(37);
  Writer a = writer(), b = writer(), c = writer();
  a.read(prompt, LogitsFor::kAll, all);
  b.read(prompt, LogitsFor::kLast, last);
  c.read(prompt, LogitsFor::kLast, {});
  CHECK(std::ranges::equal(a.logits(), std::span(all).last(37)));
  CHECK(std::ranges::equal(b.logits(), last));
  CHECK(std::ranges::equal(c.logits(), last));
  c.read(later, LogitsFor::kNone, {});
  CHECK(c.logits().empty());
}

TEST_CASE_FIXTURE(Fixture, "cancel ends what runs between two blocks, and what was read counts") {
  const std::vector<int32_t> many = random_ids(3 * kMaxBlock, 37, 9);
  Writer cancelled = writer(), whole = writer();
  for (Writer* each : {&cancelled, &whole}) each->set_sampling(options.sampling);
  const auto cancel = [&](size_t) {
    cancelled.cancel();
    return true;
  };
  CHECK(cancelled.read(many, LogitsFor::kLast, {}, cancel) == kMaxBlock);
  CHECK(cancelled.is_cancelled());
  CHECK(cancelled.logits().empty());
  const auto rest = std::span(many).subspan(kMaxBlock);
  CHECK(cancelled.read(rest, LogitsFor::kNone, {}) == kMaxBlock);  // still wanted
  cancelled.forget_cancel();
  CHECK(cancelled.read(rest.subspan(kMaxBlock), LogitsFor::kLast, {}) == kMaxBlock);
  CHECK(whole.read(many, LogitsFor::kLast, {}) == many.size());
  CHECK(saved(cancelled, "note") == saved(whole, "note"));  // the sampler's last tokens, too

  std::vector<float> rows(many.size() * 37);
  CHECK(cancelled.read(many, LogitsFor::kAll, rows, cancel) == kMaxBlock);
  CHECK(std::ranges::equal(cancelled.logits(), std::span(rows).subspan((kMaxBlock - 1) * 37, 37)));
}

TEST_CASE_FIXTURE(Fixture, "a text needs its tokenizer to be loaded, and reading by hand drops it") {
  Writer first = writer(), second = writer();
  first.start(tokenizer, prompt, options);
  first.next();
  const std::vector<std::byte> before = saved(second, "note");
  CHECK_THROWS_AS(load_snapshot(second, nullptr, saved(first, "note")), Error);
  CHECK(saved(second, "note") == before);
  const uint64_t number = first.text_number();
  first.read(later, LogitsFor::kNone, {});
  CHECK_FALSE(first.unfinished());
  CHECK(first.text_number() != number);
  CHECK_THROWS_AS(first.next(), Error);
  CHECK_THROWS_AS(first.prefill(), Error);
}

TEST_CASE_FIXTURE(Fixture, "a refused start or read leaves the text that is being written") {
  Writer w = writer();
  w.start(tokenizer, prompt, options);
  w.next();
  const std::vector<std::byte> before = saved(w, "note");
  CHECK_THROWS_AS(w.start(tokenizer, {}, options), Error);
  CHECK_THROWS_AS(w.start(tokenizer, prompt, {.max_tokens = -1}), Error);
  CHECK(saved(w, "note") == before);
  CHECK_THROWS_AS(w.read(std::vector<int32_t>{1, 37}, LogitsFor::kNone, {}), Error);
  CHECK(saved(w, "note") == before);
}

TEST_CASE_FIXTURE(Fixture,
                  "undo goes back step by step, as far as the bytes allow, and frozen stays frozen") {
  Writer w = writer();
  CHECK_FALSE(w.undo());
  std::vector<std::vector<std::byte>> states;
  const size_t one = w.session().state_bytes() + 1000;  // more than a mark takes
  for (int turn = 0; turn < 5; ++turn) {
    states.push_back(saved(w, "note"));
    w.mark(3 * one);
    CHECK(w.mark_bytes() <= 3 * one);
    w.read(later, LogitsFor::kLast, {});
  }
  CHECK(w.marks() == 3);
  for (int turn = 4; turn >= 2; --turn) {
    CHECK(w.undo());
    CHECK(saved(w, "note") == states[static_cast<size_t>(turn)]);
  }
  CHECK_FALSE(w.undo());
  w.mark(0);  // the newest always stays
  w.mark(0);
  CHECK(w.marks() == 1);
  w.session().freeze(true);
  CHECK(w.undo());
  CHECK(w.session().frozen());
  w.mark(0);
  w.reset();
  CHECK(w.marks() == 0);
  w.mark(0);
  load_snapshot(w, tokenizer, states[0]);
  CHECK(w.marks() == 0);
}

#if !defined(ALLMEM_SANITIZED)  // they keep memory of their own

TEST_CASE_FIXTURE(Fixture, "after wiping nothing is left in memory of state, logits, text, marks or drafts") {
  // Not what earlier tests have left in freed memory: other weights give other states.
  model = tiny_model(99);
  prompt = random_ids(150, 37, 21);
  later = random_ids(20, 37, 22);
  options.sampling.temperature = 20;  // letters, whatever the random weights prefer
  options.max_tokens = 200;
  Writer w = writer();
  w.speculate_with(std::make_unique<NgramDrafts>());
  const auto initial = w.session().state_memory();
  const std::vector<std::byte> untouched(initial.begin(), initial.end());
  Needles needles;
  const auto remember = [&] { needles.add(w.session().state_memory()); };

  w.read(later, LogitsFor::kLast, {});  // some history: marks, of which one is dropped
  w.mark(2 * w.session().state_bytes() + 1000);
  remember();
  needles.add(std::as_bytes(w.logits()));
  for (int turn = 0; turn < 3; ++turn) {
    w.read(later, LogitsFor::kLast, {});
    remember();
    w.mark(2 * w.session().state_bytes() + 1000);
  }
  // A text that is held back whole: it could become a stop text. Learned from a first run.
  needles.add(std::as_bytes(std::span(prompt)));
  int steps = 0;
  {
    const std::unique_ptr<Writer> first = w.clone();
    first->start(tokenizer, prompt, options);
    std::string text;
    for (; text.size() < 40; ++steps) {
      REQUIRE(first->unfinished());
      text += first->next().value_or("");
    }
    needles.add(std::as_bytes(std::span(text).first(32)));
    options.stop = {text + "and what does not follow"};
    first->wipe();
    wipe_memory(std::as_writable_bytes(std::span(text)));
  }
  w.start(tokenizer, prompt, options);
  for (int step = 0; step < steps; ++step) CHECK(w.next() == "");
  remember();
  wipe_memory(std::as_writable_bytes(std::span(options.stop[0])));
  wipe_memory(std::as_writable_bytes(std::span(prompt)));

  needles.remove(untouched);
  CHECK(needles.size() > 100);
  CHECK(needles.found() > 100);  // the search can find
  w.wipe();
  CHECK(needles.found() == 0);
  CHECK(w.session().position() == 0);
}

#endif
