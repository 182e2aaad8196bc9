// What reading a draft promises: what was wrong in it leaves no trace, and what was right is read as ever.
#include <doctest/doctest.h>

#include <algorithm>
#include <random>

#include "session_checks.h"

using namespace allmem;
using namespace allmem::test;

namespace {

struct Tries {
  size_t drafted = 0, taken_back = 0;
};

// Reads `total` tokens in both sessions: in `speculative` with drafts of random length of which a random part
// is right, in `plain` the right tokens alone. `between` is called with the sessions after each step.
template <class Between>
Tries read_both(Session& speculative, Session& plain, size_t total, const Between& between) {
  const auto vocab = static_cast<size_t>(plain.model().info().vocab_size);
  std::mt19937 random(5);
  Tries tries;
  bool equal_bytes = true, equal_logits = true;
  for (size_t step = 0; plain.position() < total; ++step) {
    const size_t most = speculative.most_speculative();
    const size_t count = 1 + random() % most, right = 1 + random() % count;
    const auto ids = random_ids(count, static_cast<int64_t>(vocab), static_cast<unsigned>(random()));
    std::vector<float> logits(count * vocab);
    CHECK(speculative.speculate(ids, logits, [&] { return right; }) == right);
    logits.resize(right * vocab);
    equal_logits = equal_logits && run(plain, std::span(ids).first(right)) == logits;
    equal_bytes = equal_bytes && bytes_of(speculative) == bytes_of(plain);
    CHECK(speculative.position() == plain.position());
    tries.drafted += count - 1;
    tries.taken_back += count - right;
    between(step);
  }
  CHECK(equal_logits);
  CHECK(equal_bytes);
  return tries;
}

Tries read_both(const std::shared_ptr<const Model>& model, size_t total, int threads = 1) {
  Session speculative(model, {.threads = threads}), plain(model, {.threads = 1});
  return read_both(speculative, plain, total, [](size_t) {});
}

TinyConfig long_chunk() {
  TinyConfig config = quantised(8);
  config.window = config.chunk = 75;
  return config;
}

Choices chosen(int64_t window, int64_t sinks, int64_t chunk) {
  Choices choices;
  choices.window = window;
  choices.sinks = sinks;
  choices.chunk = chunk;
  return choices;
}

using Ids = std::vector<int32_t>;

}  // namespace

TEST_CASE("what is taken back leaves no trace, byte for byte, over many rings, blocks and chunks") {
  for (const TinyConfig& config : {quantised(4), quantised(8), long_chunk()}) {
    const auto model = load(TinyModel(config));
    for (const int threads : {1, 4}) {
      const Tries tries = read_both(model, 450, threads);  // the ring has 192 slots or 256
      CHECK(tries.drafted > 300);
      CHECK(tries.taken_back > 150);
    }
  }
}

TEST_CASE("so it is with chosen windows and chunks, and without a memory") {
  const TinyModel tiny(quantised(8));
  Choices off, frozen;
  off.memory = MemoryUse::kOff;
  frozen.memory = MemoryUse::kFrozen;
  for (const Choices& choices : {chosen(1, 0, 1), chosen(3, 5, 2), chosen(64, 0, 33), off, frozen}) {
    const Tries tries = read_both(load(tiny, choices), 300);
    CHECK((tries.drafted > 50 || choices.chunk == 1));
  }
}

TEST_CASE("so it is in several layers") {
  const auto model = Model::load(ALLMEM_BUNDLED_MODEL);
  CHECK(model->info().layers > 1);
  const Tries tries = read_both(model, 400, 2);
  CHECK(tries.taken_back > 150);
}

TEST_CASE("so it is however a session is frozen, reset, copied and read by hand in between") {
  const auto model = load(TinyModel(long_chunk()));
  Session speculative(model, {.threads = 1}), plain(model, {.threads = 1});
  read_both(speculative, plain, 400, [&](size_t step) {
    for (Session* each : {&speculative, &plain}) {
      if (step % 23 == 9) each->freeze(true);  // the chunk goes on when it is no longer, with nothing waiting
      if (step % 23 == 13) each->freeze(false);
      if (step % 11 == 7) run(*each, random_ids(1 + step % 40, 50, static_cast<unsigned>(step)));
      if (step == 17) each->reset();
    }
    if (step % 19 == 8) plain.restore(bytes_of(speculative), speculative.position());
  });
}

TEST_CASE("nothing is drafted across the end of a chunk, or to where tokens are learned") {
  const auto model = load(TinyModel(long_chunk()));
  Session session(model, {.threads = 1});
  for (size_t position = 0; position < 160; ++position) {
    const size_t into = position % 75, next = (into + 1) % 75;
    const size_t left =
        std::min(75 - next, 32 - next % 32);  // of the chunk and of the 32, once one more is read
    CAPTURE(position);
    CHECK(session.most_speculative() == std::min(kMostSpeculative, left));
    run(session, random_ids(1, 50));
  }
  session.freeze(true);
  for (int i = 0; i < 80; ++i) {
    CHECK(session.most_speculative() == kMostSpeculative);
    run(session, random_ids(1, 50));
  }
}

TEST_CASE("nothing is drafted where a token could get other bits in a block, or its state taken back") {
  const TinyConfig whole_blocks = quantised(8);
  CHECK(Session(load(TinyModel(whole_blocks)), {.threads = 1}).most_speculative() > 1);
  for (const auto& exact : {load(TinyModel(whole_blocks), Precision::kExact), load(TinyModel())})
    CHECK(read_both(exact, 80).drafted == 0);  // and one token is read as by any other call
  Session linear(load(LinearModel().filled()), {.threads = 1});
  CHECK(linear.most_speculative() == 1);
  linear.freeze(true);
  CHECK(linear.most_speculative() == kMostSpeculative);
}

TEST_CASE("too long a draft is refused with nothing changed, and what throws in between poisons") {
  Session session(load(TinyModel(quantised(8))), {.threads = 1});
  run(session, random_ids(4, 50));
  const auto before = bytes_of(session);
  std::vector<float> logits(9 * 50);
  const auto all = [] { return size_t{9}; };
  CHECK(code_of([&] { session.speculate(random_ids(9, 50), logits, all); }) == ErrorCode::kInvalidArgument);
  CHECK(code_of([&] { session.speculate({}, logits, all); }) == ErrorCode::kInvalidArgument);
  CHECK(code_of([&] { session.speculate(Ids{50}, logits, all); }) == ErrorCode::kInvalidArgument);
  CHECK(code_of([&] { session.speculate(Ids{1}, std::span(logits).first(49), all); }) ==
        ErrorCode::kInvalidArgument);
  CHECK(bytes_of(session) == before);
  CHECK(session.position() == 4);
  CHECK(session.speculate(Ids{1}, logits, all) == 1);
  CHECK_THROWS_AS(session.speculate(Ids{1}, logits, []() -> size_t { throw 1; }), int);
  CHECK(code_of([&] { run(session, Ids{1}); }) == ErrorCode::kPoisoned);
  CHECK(code_of([&] { session.most_speculative(); }) == ErrorCode::kPoisoned);
  session.reset();
  CHECK(session.speculate(Ids{1}, logits, all) == 1);
}
