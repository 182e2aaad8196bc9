// What a session promises: the model's mathematics, whatever the split into calls and threads, and a state
// that is all there is.
#include "runtime/session.h"

#include <doctest/doctest.h>

#include <cmath>
#include <random>
#include <thread>

#include "session_checks.h"

using namespace allmem;
using namespace allmem::test;

namespace {

double worst(std::span<const float> a, std::span<const float> b) {
  double most = a.size() == b.size() ? 0 : INFINITY;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    most = std::max(most, double{std::fabs(a[i] - b[i])});
  return most;
}

double worst(std::span<const float> a, const std::vector<std::vector<double>>& rows) {
  double most = 0;
  size_t i = 0;
  for (const auto& row : rows) {
    for (const double value : row) most = std::max(most, std::fabs(double{a[i++]} - value));
  }
  return i == a.size() ? most : INFINITY;
}

// How often a session with several threads would hand out a loop.
size_t shared_loops(const std::shared_ptr<const Model>& model, std::span<const int32_t> ids) {
  size_t loops = 0;
  const auto count = [&](size_t tasks, FunctionRef<void(size_t)> task) {
    ++loops;
    for (size_t i = 0; i < tasks; ++i) task(i);
  };
  Session session(model, {.threads = 4, .run_tasks = count});
  run(session, ids);
  return loops;
}

// All of the memory's states, as numbers.
std::vector<std::vector<float>> memory_of(const Session& session) {
  std::vector<std::vector<float>> memory;
  for (size_t i = 2; i < session.model().info().states.size(); ++i) {
    const auto state = session.state(i);
    memory.emplace_back(state.begin(), state.end());
  }
  return memory;
}

// Logits pass through about 20 operators, whose roundings in float32 are 2⁻²⁴ of the largest each, and add up
// at worst. η is small (b_eta = -3), so that the memory does not amplify differences.
double tolerance(std::span<const float> logits) {
  double most = 0;
  for (const float value : logits) most = std::max(most, std::fabs(double{value}));
  return 20 * most * 0x1p-24;
}

}  // namespace

TEST_CASE("logits equal the double-precision reference over many windows and chunks") {
  TinyConfig configs[4];
  configs[1] = {.vocab = 19,
                .width = 16,
                .heads = 2,
                .kv_heads = 2,
                .dim = 4,
                .window = 3,
                .sinks = 0,
                .hidden = 8,
                .chunk = 1,
                .seed = 2};
  configs[2] = {.vocab = 50,
                .width = 32,
                .heads = 6,
                .kv_heads = 1,
                .dim = 16,
                .window = 100,
                .sinks = 9,
                .hidden = 16,
                .chunk = 64,
                .seed = 3};
  configs[3] = {.vocab = 11,
                .width = 8,
                .heads = 4,
                .kv_heads = 4,
                .dim = 2,
                .window = 1,
                .sinks = 1,
                .hidden = 2,
                .chunk = 3,
                .seed = 4};
  for (const TinyConfig& config : configs) {
    const TinyModel tiny(config);
    Session session(load(tiny), {.threads = 1});
    const auto ids = random_ids(200, config.vocab);
    const auto logits = run(session, ids);
    CHECK(worst(logits, tiny.reference(ids)) < tolerance(logits));
    CHECK(session.position() == 200);
  }
}

TEST_CASE(
    "exact logits of a quantised model equal the double-precision reference on what its codes stand for") {
  for (const unsigned bits : {4u, 8u}) {
    const TinyModel tiny(quantised(bits));
    Session session(load(tiny, Precision::kExact), {.threads = 1});
    const auto ids = random_ids(200, tiny.config.vocab);
    const auto logits = run(session, ids);
    CHECK(worst(logits, tiny.reference(ids)) < tolerance(logits));
  }
}

TEST_CASE("a model of float32 weights is exact and says so, however it is loaded") {
  const TinyModel plain(quantised(0)), codes(quantised(4));
  CHECK(load(plain, Precision::kFast)->info().exact);
  CHECK(load(plain, Precision::kExact)->info().exact);
  CHECK_FALSE(load(codes, Precision::kFast)->info().exact);
  CHECK(load(codes, Precision::kExact)->info().exact);
}

TEST_CASE("8-bit activations lose less than the 4-bit weights do") {
  const TinyModel tiny(quantised(4)), unquantised(quantised(0));
  const auto ids = random_ids(200, tiny.config.vocab);
  Session exact(load(tiny, Precision::kExact), {.threads = 1}), fast(load(tiny), {.threads = 1});
  const auto exact_logits = run(exact, ids), fast_logits = run(fast, ids);
  const auto squares = [](const std::vector<float>& a, const auto& b) {
    double sum = 0;
    size_t i = 0;
    for (const auto& row : b) {
      for (const double value : row) sum += std::pow(double{a[i++]} - value, 2);
    }
    return sum;
  };
  const double by_activations = squares(fast_logits, std::vector<std::vector<float>>{exact_logits});
  const double by_weights = squares(exact_logits, unquantised.reference(ids));
  CHECK(by_activations > 0);  // it is the other path
  CHECK(by_activations < by_weights);
}

TEST_CASE("in fast mode neither the split of the stream nor the number of threads changes a bit") {
  TinyConfig long_chunk = quantised(8);  // of several blocks that are learned together, and a rest
  long_chunk.window = long_chunk.chunk = 75;
  for (const TinyConfig& config : {quantised(4), quantised(8), long_chunk}) {
    const TinyModel tiny(config);
    const auto model = load(tiny);
    const auto ids = random_ids(300, tiny.config.vocab);
    Session whole(model, {.threads = 1}), four(model, {.threads = 4});
    const auto expected = run(whole, ids);
    CHECK(shared_loops(model, ids) > 0);
    CHECK(run(four, ids) == expected);
    CHECK(memory_of(four) == memory_of(whole));
    std::mt19937 random(3);
    for (const size_t longest : {1, 3, 7, 40}) {
      Session split(model, {.threads = 1});
      std::vector<float> logits;
      for (size_t begin = 0; begin < ids.size();) {
        const size_t count = std::min<size_t>(ids.size() - begin, 1 + random() % longest);
        const auto part = run(split, std::span(ids).subspan(begin, count));
        logits.insert(logits.end(), part.begin(), part.end());
        begin += count;
      }
      CHECK(logits == expected);
      CHECK(memory_of(split) == memory_of(whole));
    }
  }
}

TEST_CASE("any split of a stream into calls gives the same logits") {
  const TinyModel tiny;
  const auto model = load(tiny);
  const auto ids = random_ids(300, tiny.config.vocab);
  Session whole(model, {.threads = 1});
  const auto expected = run(whole, ids);
  std::mt19937 random(3);
  for (int round = 0; round < 5; ++round) {
    Session session(model, {.threads = 1});
    std::vector<float> logits;
    for (size_t begin = 0; begin < ids.size();) {
      const size_t count = std::min<size_t>(ids.size() - begin, 1 + random() % (round == 0 ? 1 : 90));
      const auto part = run(session, std::span(ids).subspan(begin, count));
      logits.insert(logits.end(), part.begin(), part.end());
      begin += count;
    }
    CHECK(worst(logits, expected) < tolerance(expected));
  }
}

TEST_CASE("logits for the last token are the last row of logits for all, and none leaves the buffer alone") {
  const TinyModel tiny;
  const auto model = load(tiny);
  const auto ids = random_ids(150, tiny.config.vocab);
  Session all(model, {.threads = 1}), last(model, {.threads = 1}), none(model, {.threads = 1});
  const auto expected = run(all, ids);
  const auto vocab = static_cast<size_t>(tiny.config.vocab);
  std::vector<float> row(vocab, -1.0f);
  none.forward(ids, LogitsFor::kNone, row);
  CHECK(row == std::vector<float>(vocab, -1.0f));
  last.forward(ids, LogitsFor::kLast, row);
  CHECK(worst(row, std::span(expected).last(vocab)) < tolerance(expected));
  const auto all_next = run(all, std::span(ids).first(9)), none_next = run(none, std::span(ids).first(9));
  CHECK(worst(all_next, none_next) < tolerance(all_next));
}

TEST_CASE("steps that lead only to the logits run for the rows asked for") {
  const TinyModel tiny;
  const auto model = load(tiny);
  size_t head = 0;
  for (const Step& step : model->program().steps) head += step.head;
  CHECK(head == 11);  // gate, add, W_o, add, norm, two up, silu_mul, down, add, logits
}

TEST_CASE("several threads give the logits of one") {
  const TinyModel tiny({.vocab = 600,
                        .width = 96,
                        .heads = 8,
                        .kv_heads = 4,
                        .dim = 16,
                        .window = 20,
                        .sinks = 2,
                        .hidden = 32,
                        .chunk = 16});
  const auto model = load(tiny);
  const auto ids = random_ids(200, tiny.config.vocab);
  Session one(model, {.threads = 1}), four(model, {.threads = 4});
  const auto expected = run(one, ids);
  CHECK(shared_loops(model, ids) > 0);
  CHECK(run(four, ids) == expected);  // bit for bit: a row's arithmetic does not depend on who does it
  CHECK(four.threads() == 4);
}

TEST_CASE("a frozen session reads its memory and never writes it") {
  const TinyModel tiny;
  Session session(load(tiny), {.threads = 1});
  const auto ids = random_ids(120, tiny.config.vocab);
  const auto first = run(session, std::span(ids).first(33));
  session.freeze(true);
  CHECK(session.frozen());
  const auto before = memory_of(session);
  auto logits = first;
  const auto rest = run(session, std::span(ids).subspan(33));
  logits.insert(logits.end(), rest.begin(), rest.end());
  CHECK(worst(logits, tiny.reference(ids, 33)) < tolerance(logits));
  CHECK(memory_of(session) == before);
  session.freeze(false);
  run(session, std::span(ids).first(20));
  CHECK(memory_of(session)[0] != before[0]);
}

TEST_CASE("freezing learns what an unfinished chunk has, once, and nothing at a chunk's end") {
  for (const TinyConfig& config : {TinyConfig{}, quantised(8)}) {
    const TinyModel tiny(config);
    const auto ids = random_ids(120, config.vocab);
    const auto chunk = static_cast<size_t>(config.chunk);
    for (const size_t count : {chunk, chunk + 1, 2 * chunk - 1, 3 * chunk}) {
      CAPTURE(count);
      Session session(load(tiny), {.threads = 2});
      run(session, std::span(ids).first(count));
      const auto before = memory_of(session);
      session.freeze(true);
      const auto after = memory_of(session);
      CHECK((before == after) == (count % chunk == 0));
      session.freeze(true);
      session.freeze(false);
      session.freeze(true);
      CHECK(memory_of(session) == after);
      run(session, std::span(ids).last(30));
      CHECK(memory_of(session) == after);
    }
  }
}

TEST_CASE("a clone goes on like the original and independently of it, also in mid-chunk") {
  const TinyModel tiny;
  Session session(load(tiny), {.threads = 1});
  const auto ids = random_ids(100, tiny.config.vocab), other = random_ids(40, tiny.config.vocab, 8);
  run(session, std::span(ids).first(43));
  const auto copy = session.clone();
  CHECK(copy->position() == 43);
  run(session, other);
  const auto twin = copy->clone();
  const auto a = run(*copy, std::span(ids).subspan(43)), b = run(*twin, std::span(ids).subspan(43));
  CHECK(a == b);  // bit for bit
}

TEST_CASE("reset makes a session as new: every byte of the state, and what it computes from then on") {
  for (const TinyConfig& config : {TinyConfig{}, quantised(4)}) {
    const TinyModel tiny(config);
    const auto model = load(tiny);
    Session session(model, {.threads = 2}), fresh(model, {.threads = 2});
    const auto ids = random_ids(77, config.vocab);
    const std::vector<std::byte> untouched = bytes_of(fresh);
    const auto first = run(session, ids);
    CHECK(bytes_of(session) != untouched);
    session.reset();
    CHECK(session.position() == 0);
    CHECK(bytes_of(session) == untouched);
    CHECK(run(session, ids) == first);
    // A state made by hand may also say something where no value lies.
    session.restore(std::vector<std::byte>(session.state_bytes(), std::byte{0x3D}), 12);
    session.reset();
    CHECK(bytes_of(session) == untouched);
    CHECK(run(session, ids) == run(fresh, ids));
    CHECK(bytes_of(session) == bytes_of(fresh));
  }
}

TEST_CASE("restored bytes continue an uninterrupted run bit for bit") {
  const TinyModel tiny;
  const auto model = load(tiny);
  Session session(model, {.threads = 1}), restored(model, {.threads = 1});
  const auto ids = random_ids(90, tiny.config.vocab);
  run(session, std::span(ids).first(48));
  const std::vector<std::byte> bytes(session.state_memory().begin(), session.state_memory().end());
  restored.restore(bytes, session.position());
  CHECK(run(restored, std::span(ids).subspan(48)) == run(session, std::span(ids).subspan(48)));
  CHECK(code_of([&] { restored.restore(std::span(bytes).first(8), 0); }) == ErrorCode::kInvalidArgument);
  session.restore(session.state_memory(), session.position());  // its own bytes
  CHECK(run(session, ids) == run(restored, ids));
}

TEST_CASE("sessions of one model in several threads end with the logits and the state that each has alone") {
  constexpr size_t kSessions = 3;
  for (const TinyConfig& config : {TinyConfig{}, quantised(8)}) {
    const TinyModel tiny(config);
    const auto model = load(tiny);
    struct Result {
      std::vector<float> logits;
      std::vector<std::byte> state;
      bool operator==(const Result&) const = default;
    };
    const auto read = [&](size_t number) {  // each its own text, in calls of its own
      Session session(model, {.threads = 1 + static_cast<int>(number % 2)});
      const auto ids = random_ids(150, config.vocab, static_cast<unsigned>(number));
      Result result;
      for (size_t begin = 0; begin < ids.size(); begin += 10 + number) {
        const auto part =
            run(session, std::span(ids).subspan(begin).first(std::min(10 + number, ids.size() - begin)));
        result.logits.insert(result.logits.end(), part.begin(), part.end());
      }
      result.state = bytes_of(session);
      return result;
    };
    std::vector<Result> alone, together(kSessions);
    for (size_t i = 0; i < kSessions; ++i) alone.push_back(read(i));
    std::vector<std::thread> threads;
    for (size_t i = 0; i < kSessions; ++i) threads.emplace_back([&, i] { together[i] = read(i); });
    for (std::thread& thread : threads) thread.join();
    CHECK(together == alone);
    CHECK(alone[0] != alone[1]);
  }
}
