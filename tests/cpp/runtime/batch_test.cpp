// What a batch promises: each session gets what it would get alone, and what goes wrong with one is its own.
#include "runtime/batch.h"

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <thread>

#include "kernels/kernels.h"
#include "runtime/writer.h"
#include "session_checks.h"

using namespace allmem;
using namespace allmem::test;

namespace {

void force_isa(const char* name) {
#if defined(_WIN32)
  _putenv_s("ALLMEM_ISA", name);  // "" takes it away
#else
  setenv("ALLMEM_ISA", name, 1);
#endif
}

// Sessions of a model, some tokens for each, and room for logits.
struct Sessions {
  Sessions(std::shared_ptr<const Model> of, size_t count, size_t length) : model(std::move(of)) {
    for (size_t i = 0; i < count; ++i) {
      sessions.push_back(std::make_unique<Session>(model, SessionOptions{.threads = 1}));
      ids.push_back(random_ids(length, model->info().vocab_size, static_cast<unsigned>(100 + i)));
      logits.emplace_back(length * vocab(), 7.0f);
    }
  }

  size_t vocab() const { return static_cast<size_t>(model->info().vocab_size); }
  // Its next `count` ids.
  Batch::Item item(size_t i, size_t count, LogitsFor which) {
    const auto next = std::span(ids[i]).subspan(static_cast<size_t>(sessions[i]->position()), count);
    return {.session = sessions[i].get(), .ids = next, .which = which, .logits = logits[i]};
  }
  std::vector<Batch::Item> all(size_t count) {
    std::vector<Batch::Item> items;
    for (size_t i = 0; i < sessions.size(); ++i) items.push_back(item(i, count, LogitsFor::kLast));
    return items;
  }

  std::shared_ptr<const Model> model;
  std::vector<std::unique_ptr<Session>> sessions;
  std::vector<std::vector<int32_t>> ids;
  std::vector<std::vector<float>> logits;
};

// Lets sessions read together and their twins alone, in random pieces, until all have read all.
void check_equal_alone(const std::shared_ptr<const Model>& model, int threads, unsigned seed) {
  constexpr size_t kCount = 4, kLength = 420;
  Sessions together(model, kCount, kLength), alone(model, kCount, kLength);
  Batch batch(model, {.threads = threads});
  std::mt19937 random(seed);
  while (true) {
    std::vector<Batch::Item> items;
    std::vector<size_t> who;
    for (size_t i = 0; i < kCount; ++i) {
      if (random() % 40 == 0) {  // what one does alone, and whether it is frozen, concerns no other
        const bool frozen = random() % 2 == 0;
        together.sessions[i]->freeze(frozen);
        alone.sessions[i]->freeze(frozen);
      }
      const size_t left = kLength - static_cast<size_t>(together.sessions[i]->position());
      if (left == 0 || random() % 4 == 0) continue;
      constexpr size_t kMost[] = {1, 1, 1, 1, 9, 150};
      const size_t count = std::min(left, 1 + random() % kMost[random() % std::size(kMost)]);
      constexpr LogitsFor kWhich[] = {LogitsFor::kLast, LogitsFor::kLast, LogitsFor::kNone, LogitsFor::kAll};
      items.insert(items.begin() + static_cast<ptrdiff_t>(random() % (items.size() + 1)),
                   together.item(i, count, kWhich[random() % std::size(kWhich)]));
    }
    batch.forward(items);
    for (const Batch::Item& item : items) {
      REQUIRE_FALSE(item.error);
      REQUIRE(item.read == item.ids.size());
      size_t i = 0;
      while (together.sessions[i].get() != item.session) ++i;
      const Batch::Item same = alone.item(i, item.ids.size(), item.which);
      alone.sessions[i]->forward(same.ids, same.which, same.logits);
      REQUIRE(together.logits[i] == alone.logits[i]);
    }
    bool done = true;
    for (const auto& session : together.sessions) done = done && session->position() == kLength;
    if (done) break;
  }
  for (size_t i = 0; i < kCount; ++i) CHECK(bytes_of(*together.sessions[i]) == bytes_of(*alone.sessions[i]));
}

}  // namespace

TEST_CASE("sessions that read together, come and go, read what each does alone, to the same bits") {
  unsigned seed = 0;
  const char* const before = std::getenv("ALLMEM_ISA");
  const std::string given = before == nullptr ? best_kernels().name : before;
  for (const Kernels* kernels : available_kernels()) {
#if defined(ALLMEM_SANITIZED)  // what threads do to each other does not depend on the instructions
    if (kernels != &best_kernels()) continue;
#endif
    CAPTURE(kernels->name);
    force_isa(kernels->name);
    for (const unsigned bits : {4u, 8u}) {
      const auto model = allmem::test::load(TinyModel(quantised(bits)));
      CHECK(model->program().shares_blocks);
      check_equal_alone(model, 1, ++seed);
      check_equal_alone(model, 3, ++seed);
    }
    LinearModel linear;
    check_equal_alone(load(linear.filled()), 2, ++seed);
  }
  force_isa(given.c_str());
}

TEST_CASE("in exact mode sessions that read together differ by rounding at most") {
  for (const unsigned bits : {0u, 4u}) {
    const auto model = allmem::test::load(TinyModel(quantised(bits)), Precision::kExact);
    Sessions together(model, 3, 60), alone(model, 3, 60);
    Batch batch(model, {.threads = 2});
    for (size_t step = 0; step < 60; ++step) {
      std::vector<Batch::Item> items = together.all(1), same = alone.all(1);
      batch.forward(items);
      for (size_t i = 0; i < 3; ++i) {
        alone.sessions[i]->forward(same[i].ids, same[i].which, same[i].logits);
        double most = 0, difference = 0;
        for (size_t j = 0; j < together.vocab(); ++j) {
          most = std::max(most, std::fabs(double{alone.logits[i][j]}));
          difference = std::max(difference, std::fabs(double{alone.logits[i][j]} - together.logits[i][j]));
        }
        CHECK(difference <= 20 * most * 0x1p-24);  // as in session_test.cpp: about 20 operators' roundings
      }
    }
  }
}

TEST_CASE("a session whose numbers are none is poisoned, and the others' results stand") {
  const auto model = allmem::test::load(TinyModel());
  const std::vector<State>& states = model->program().states;
  const auto weight = std::ranges::find_if(
      states, [](const State& state) { return state.name.find("memory.weight.gate") != std::string::npos; });
  REQUIRE(weight != states.end());
  std::vector<std::vector<float>> logits[2];
  for (const bool damaged : {false, true}) {
    Sessions s(model, 3, 8);
    if (damaged) {
      std::vector<std::byte> bytes = bytes_of(*s.sessions[1]);
      std::memset(bytes.data() + weight->offset, 0xFF, sizeof(float));  // NaN
      s.sessions[1]->restore(bytes, 0);
    }
    std::vector<Batch::Item> items = s.all(8);
    Batch batch(model, {.threads = 1});
    batch.forward(items);
    CHECK(items[1].error.has_value() == damaged);
    if (damaged) {
      CHECK(items[1].error->code() == ErrorCode::kBadModel);
      CHECK(items[1].read == 0);
      CHECK(s.logits[1][0] == 7.0f);
      CHECK(code_of([&] { s.sessions[1]->state_memory(); }) == ErrorCode::kPoisoned);
      std::vector<Batch::Item> again{s.item(1, 1, LogitsFor::kLast)};
      batch.forward(again);
      CHECK(again[0].error->code() == ErrorCode::kPoisoned);
    }
    for (const size_t i : {size_t{0}, size_t{2}}) {
      CHECK_FALSE(items[i].error);
      CHECK(s.sessions[i]->position() == 8);
      logits[damaged].push_back(s.logits[i]);
    }
  }
  CHECK(logits[0] == logits[1]);
}

TEST_CASE("what is wrong with one item is that item's error, with its session unchanged") {
  const auto model = allmem::test::load(TinyModel());
  const auto other = allmem::test::load(TinyModel());
  Sessions s(model, 6, 10);
  Session stranger(other, {.threads = 1});
  Batch batch(model, {.threads = 1});
  std::vector<Batch::Item> items = s.all(2);
  const std::vector<int32_t> outside{1, 37};
  items[0].ids = outside;
  items[1].ids = {};
  items[2].logits = {};
  items[3].session = &stranger;
  batch.forward(items);
  for (size_t i = 0; i < 6; ++i) {
    CAPTURE(i);
    CHECK(items[i].error.has_value() == (i < 4));
    if (i < 4) CHECK(items[i].error->code() == ErrorCode::kInvalidArgument);
    CHECK(items[i].read == (i < 4 ? 0 : 2));
    CHECK(s.sessions[i]->position() == items[i].read);
  }
  CHECK(stranger.position() == 0);
  CHECK(std::string(items[3].error->what()).find("another model") != std::string::npos);
}

TEST_CASE("a session twice, a null one and bad options are refused, and a batch of nobody does nothing") {
  const auto model = allmem::test::load(TinyModel());
  Sessions s(model, 2, 10);
  Batch batch(model, {.threads = 1});
  std::vector<Batch::Item> items = s.all(2);
  items[1].session = items[0].session;
  CHECK(code_of([&] { batch.forward(items); }) == ErrorCode::kInvalidArgument);
  items[1].session = nullptr;
  CHECK(code_of([&] { batch.forward(items); }) == ErrorCode::kInvalidArgument);
  CHECK(s.sessions[0]->position() == 0);
  batch.forward({});
  CHECK(code_of([&] { Batch(nullptr, {}); }) == ErrorCode::kInvalidArgument);
  CHECK(code_of([&] { Batch(model, {.threads = -1}); }) == ErrorCode::kInvalidArgument);
}

TEST_CASE("one session may stop between two blocks while the others go on, or all when that throws") {
  const auto model = allmem::test::load(TinyModel(quantised(8)));
  constexpr size_t kLength = 3 * kMaxBlock;
  Sessions s(model, 3, 2 * kLength), alone(model, 3, 2 * kLength);
  Batch batch(model, {.threads = 2});
  std::vector<Batch::Item> items = s.all(kLength);
  std::vector<size_t> asked;
  const auto stop = [&](size_t read) {
    asked.push_back(read);
    return false;
  };
  items[0].ids = items[0].ids.first(kMaxBlock - 10);
  items[1].go_on = stop;  // its first ten tokens were in the first block
  batch.forward(items);
  CHECK(asked == std::vector<size_t>{10});
  CHECK(items[1].read == 10);
  CHECK_FALSE(items[1].error);
  CHECK(s.logits[1][0] == 7.0f);  // of its last token, which was not read
  CHECK(items[2].read == kLength);
  for (const size_t i : {size_t{0}, size_t{1}, size_t{2}}) {
    alone.sessions[i]->forward(std::span(alone.ids[i]).first(items[i].read), LogitsFor::kNone, {});
    CHECK(bytes_of(*s.sessions[i]) == bytes_of(*alone.sessions[i]));
  }
  const auto give_up = [](size_t) -> bool { throw Error(ErrorCode::kIo, "Given up."); };
  items = s.all(kMaxBlock);
  items[1].go_on = give_up;
  items[0].ids = items[0].ids.first(1);
  CHECK(code_of([&] { batch.forward(items); }) == ErrorCode::kIo);
  CHECK(items[0].read == 1);
  CHECK(items[1].read == kMaxBlock - 1);
  CHECK(items[2].read == 0);
  CHECK(s.sessions[1]->position() == 10 + kMaxBlock - 1);
  for (const auto& session : s.sessions) CHECK_NOTHROW(session->state_memory());  // none is poisoned
}

TEST_CASE("a graph that mixes tokens, or whose rows may fail, runs for one session at a time") {
  OnnxBuilder bad = failing_at_30();
  // The position, which each session has its own of, without a row for each token.
  OnnxBuilder placed;
  placed.defaults().input("input_ids", kInt64, {kT}).input("position", kInt64, {});
  placed.output("logits", kFloat, {kT, 40}).floats("table", {40, 40}, std::vector<float>(1600, 0.5f));
  placed.node("Cast", {"position"}, {"p"}, {Attr::i("to", kFloat)})
      .node("Gather", {"table", "input_ids"}, {"x"});
  placed.node("Add", {"x", "p"}, {"logits"});
  for (const OnnxBuilder* builder : {&bad, &placed}) {
    const TempDir directory;
    const auto model = Model::load(directory.write("model.onnx", builder->build()));
    CHECK_FALSE(model->program().shares_blocks);
    Sessions s(model, 3, 5);
    for (size_t i = 0; i < 3; ++i) s.ids[i].assign(5, builder == &bad && i == 1 ? 30 : 1);
    if (builder == &placed) s.sessions[2]->forward(std::vector<int32_t>{1, 1}, LogitsFor::kNone, {});
    std::vector<Batch::Item> items = s.all(2);
    Batch batch(model, {.threads = 1});
    batch.forward(items);
    if (builder == &bad) {
      CHECK(items[1].error->code() == ErrorCode::kBadModel);
      for (const size_t i : {size_t{0}, size_t{2}}) CHECK(s.logits[i][0] == 1.5f);
    } else {
      CHECK(s.logits[0][0] == 0.5f);
      CHECK(s.logits[2][0] == 2.5f);
    }
  }
}

TEST_CASE("a host's threads that throw end the call, and poison whose tokens were in the block") {
  const auto model = allmem::test::load(TinyModel(quantised(8)));
  Sessions s(model, 2, 100);
  size_t calls = 0;
  const auto tasks = [&](size_t count, FunctionRef<void(size_t)> task) {
    for (size_t i = 0; i < count; ++i) task(i);
    if (++calls == 3) throw Error(ErrorCode::kCancelled, "The host has other things to do.");
  };
  Batch batch(model, {.threads = 4, .run_tasks = tasks});
  std::vector<Batch::Item> items = s.all(100);
  CHECK(code_of([&] { batch.forward(items); }) == ErrorCode::kCancelled);
  for (const auto& session : s.sessions)
    CHECK(code_of([&] { session->state_memory(); }) == ErrorCode::kPoisoned);
}

TEST_CASE("batches and sessions of one model work at the same time") {
  const auto model = allmem::test::load(TinyModel(quantised(8)));
  Sessions alone(model, 6, 40);
  for (size_t i = 0; i < 6; ++i) run(*alone.sessions[i], alone.ids[i]);
  Sessions s(model, 6, 40);
  const auto pair = [&](size_t first) {
    Batch batch(model, {.threads = 2});
    for (size_t step = 0; step < 40; ++step) {
      Batch::Item items[] = {s.item(first, 1, LogitsFor::kLast), s.item(first + 1, 1, LogitsFor::kLast)};
      batch.forward(items);
    }
  };
  std::thread a(pair, 0), b(pair, 2);
  for (const size_t i : {size_t{4}, size_t{5}}) run(*s.sessions[i], s.ids[i]);
  a.join();
  b.join();
  for (size_t i = 0; i < 6; ++i) CHECK(bytes_of(*s.sessions[i]) == bytes_of(*alone.sessions[i]));
}
