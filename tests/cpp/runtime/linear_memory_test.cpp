// Sessions of a model with a linear memory: against double precision, split, frozen, saved, and chosen at
// load.
#include <doctest/doctest.h>

#include <cstdlib>
#include <cstring>

#include "kernels/kernels.h"
#include "runtime/layer_memory.h"
#include "snapshot_fixture.h"

using namespace allmem;
using namespace allmem::test;
using namespace allmem::test::snapshots;

namespace {

// Logits of `ids`, in calls of `step` tokens.
std::vector<float> read(Session& session, std::span<const int32_t> ids, size_t step) {
  const auto vocab = static_cast<size_t>(session.model().info().vocab_size);
  std::vector<float> logits(ids.size() * vocab);
  for (size_t i = 0; i < ids.size(); i += step) {
    const size_t count = std::min(step, ids.size() - i);
    session.forward(ids.subspan(i, count), LogitsFor::kAll,
                    std::span(logits).subspan(i * vocab, count * vocab));
  }
  return logits;
}

// Roundings of 2^-24, relative to the largest logit: of three products one after the other, of `width`
// (projections), `dim` (memory) and `width` terms (logits), and of the state, where each token leaves five,
// of which those of the last 1 / (1 - β) = 8 tokens have not decayed.
void check_near(const LinearModel& linear, std::span<const float> got, std::span<const double> want) {
  REQUIRE(got.size() == want.size());
  double worst = 0, largest = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    worst = std::max(worst, std::fabs(double{got[i]} - want[i]));
    largest = std::max(largest, std::fabs(want[i]));
  }
  CHECK(worst <= static_cast<double>(2 * linear.width() + linear.dim + 40) * 0x1p-24 * largest);
}

}  // namespace

TEST_CASE("a linear memory computes its rule for any split and any number of threads, to the same bits") {
  for (const int64_t delta : {1, 0}) {
    LinearModel linear{.delta = delta};
    const auto model = load(linear.filled());
    const auto ids = random_ids(600, linear.vocab);
    Session whole(model, {.threads = 1});
    const auto logits = read(whole, ids, ids.size());
    check_near(linear, logits, linear.reference(ids));
    for (const size_t step : {1, 7, 130}) {
      Session split(model, {.threads = 2});
      CHECK(read(split, ids, step) == logits);
    }
  }
}

TEST_CASE("heads of many sizes share linear memories as they share keys") {
  for (const auto& [heads, kv_heads, dim] :
       {std::array<int64_t, 3>{1, 1, 1}, {3, 1, 5}, {6, 3, 16}, {2, 2, 33}}) {
    LinearModel linear{.heads = heads, .kv_heads = kv_heads, .dim = dim, .state = {kv_heads, dim, dim}};
    Session session(load(linear.filled()), {.threads = 1});
    const auto ids = random_ids(80, linear.vocab);
    check_near(linear, read(session, ids, 9), linear.reference(ids));
  }
}

TEST_CASE("a frozen linear memory is read, neither written nor forgotten, and learns again after") {
  LinearModel linear;
  const auto model = load(linear.filled());
  const auto ids = random_ids(60, linear.vocab);
  Session session(model, {.threads = 1});
  const auto first = read(session, std::span(ids).first(23), 5);
  session.freeze(true);
  const auto before = session.state(0);
  const std::vector<float> kept(before.begin(), before.end());
  auto logits = read(session, std::span(ids).subspan(23), 6);
  logits.insert(logits.begin(), first.begin(), first.end());
  check_near(linear, logits, linear.reference(ids, 23));
  CHECK(std::ranges::equal(session.state(0), kept));
  session.freeze(false);
  read(session, ids, 8);
  CHECK_FALSE(std::ranges::equal(session.state(0), kept));
}

TEST_CASE("a snapshot of a linear memory goes on to the same bits, and only in a model with such a memory") {
  LinearModel linear;
  const auto model = load(linear.filled());
  const auto ids = random_ids(90, linear.vocab);
  Writer writer = make_writer(model);
  run(writer, std::span(ids).first(41));
  const auto bytes = saved(writer, "");
  const auto rest = run(writer, std::span(ids).subspan(41));
  Writer other = make_writer(model);
  load_snapshot(other, nullptr, bytes);
  CHECK(run(other, std::span(ids).subspan(41)) == rest);

  Writer of_mlp = make_writer(load(TinyModel()));
  message_of([&] { load_snapshot(of_mlp, nullptr, bytes); }, ErrorCode::kBadSnapshot);
}

TEST_CASE("a snapshot of a linear memory belongs to its rule: with the delta part or without it") {
  LinearModel linear;
  const auto model = load(linear.filled());
  Choices off;
  off.memory = MemoryUse::kOff;
  CHECK(fingerprint(*load(linear, off)) == fingerprint(*model));  // of the file, not of what was chosen
  linear.delta = 0;
  Writer without = make_writer(load(linear));
  const auto before = saved(without, "");
  Writer writer = make_writer(model);
  run(writer, random_ids(20, linear.vocab));
  const auto bytes = saved(writer, "");
  message_of([&] { load_snapshot(without, nullptr, bytes); }, ErrorCode::kBadSnapshot);
  CHECK(saved(without, "") == before);
}

TEST_CASE("a session reports its linear memory as fast weights that begin as zeros") {
  LinearModel linear;
  Session session(load(linear.filled()), {.threads = 1});
  const auto before = layer_memories(session);
  REQUIRE(before.size() == 1);
  CHECK(before[0].drift == 0);
  read(session, random_ids(30, linear.vocab), 30);
  double squares = 0;
  for (const float value : session.state(0)) squares += double{value} * double{value};
  CHECK(layer_memories(session)[0].drift == doctest::Approx(std::sqrt(squares)));
  const StateParts parts = state_parts(session.model().info().states, session.state_bytes());
  CHECK(parts.fast_weights == 2 * 8 * 8 * sizeof(float));
}

TEST_CASE("a linear memory can be frozen or off from the start, but its chunk is 1") {
  LinearModel linear;
  linear.filled();
  Choices choices;
  const auto ids = random_ids(40, linear.vocab);
  for (const MemoryUse use : {MemoryUse::kFrozen, MemoryUse::kOff}) {
    choices.memory = use;
    Session session(load(linear, choices), {.threads = 1});
    check_near(linear, read(session, ids, 7), linear.reference(ids, 0));
    CHECK(session.model().info().states.empty() == (use == MemoryUse::kOff));
  }
  choices.memory = MemoryUse::kOn;
  choices.chunk = 1;  // what it is
  CHECK(load(linear, choices)->info().chosen.empty());
  choices.chunk = 2;
  const std::string message = message_of([&] { load(linear, choices); }, ErrorCode::kInvalidArgument);
  CHECK(message.find("its chunk is 1") != std::string::npos);
}
