// Window, sinks, chunk and the use of the memory, chosen when a model is loaded.
#include <doctest/doctest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "platform/physical_memory.h"
#include "snapshot_fixture.h"

using namespace allmem;
using namespace allmem::test;

namespace {

using snapshots::make_writer;
using snapshots::message_of;

Choices chosen(std::optional<int64_t> window, std::optional<int64_t> sinks, std::optional<int64_t> chunk) {
  Choices choices;
  choices.window = window;
  choices.sinks = sinks;
  choices.chunk = chunk;
  return choices;
}

Choices with(MemoryUse memory) {
  Choices choices;
  choices.memory = memory;
  return choices;
}

// Logits of all of `ids`, read in calls of random lengths.
std::vector<float> run(Session& session, const std::vector<int32_t>& ids) {
  const auto vocab = static_cast<size_t>(session.model().info().vocab_size);
  std::vector<float> logits(ids.size() * vocab);
  std::mt19937 random(3);
  for (size_t begin = 0; begin < ids.size();) {
    const size_t count = std::min<size_t>(ids.size() - begin, 1 + random() % 40);
    session.forward(std::span(ids).subspan(begin, count), LogitsFor::kAll,
                    std::span(logits).subspan(begin * vocab, count * vocab));
    begin += count;
  }
  return logits;
}

std::vector<float> run(const std::shared_ptr<const Model>& model, const std::vector<int32_t>& ids) {
  Session session(model, {.threads = 1});
  return run(session, ids);
}

}  // namespace

TEST_CASE("a window, sinks and a chunk chosen at load are as those of a file made with them, bit for bit") {
  for (const unsigned bits : {0u, 4u, 8u}) {
    TinyConfig other = quantised(bits);
    other.window = 21;
    other.sinks = 5;
    other.chunk = 17;
    const auto ids = random_ids(600, other.vocab);
    const auto made = load(TinyModel(other)), asked = load(TinyModel(quantised(bits)), chosen(21, 5, 17));
    Session made_session(made, {.threads = 1}), asked_session(asked, {.threads = 1});
    CHECK(run(made_session, ids) == run(asked_session, ids));
    CHECK(std::ranges::equal(made_session.state_memory(), asked_session.state_memory()));
    CHECK(made_session.total_bytes() == asked_session.total_bytes());
    CHECK(asked->info().window == 21);
    CHECK(asked->info().sinks == 5);
    CHECK(asked->info().chunk == 17);
    CHECK(asked->info().chosen == "window 21, sinks 5, chunk 17, memory on");
    CHECK(asked->info().states[0].shape == std::vector<int64_t>{1, 26, 32});
  }
}

TEST_CASE(
    "with the memory off, logits are those of a model whose gate is closed, and nothing of it is left") {
  for (const unsigned bits : {0u, 4u, 8u}) {
    TinyModel closed(quantised(bits));
    std::ranges::fill(closed.weights.at("alpha"), 0.0f);
    const TinyModel tiny(quantised(bits));
    const auto ids = random_ids(300, tiny.config.vocab);
    const auto off = load(tiny, with(MemoryUse::kOff)), on = load(tiny);
    CHECK(run(off, ids) == run(load(closed), ids));
    CHECK(run(off, ids) != run(on, ids));
    CHECK(off->info().states.size() == 2);
    CHECK(off->info().chunk == 0);
    for (const StateInfo& state : off->info().states) CHECK(state.name.find("memory") == std::string::npos);
    CHECK(off->program().derived_bytes ==
          (bits == 0 ? 0 : 768));  // 7 slots of 104 bytes that a draft overwrites
    CHECK(off->program().state_bytes < on->program().state_bytes);
    CHECK(off->info().weight_bytes < on->info().weight_bytes);
    for (const Step& step : off->program().steps) {
      CHECK(step.kind != "TestTimeMemory");
      CHECK(step.kind != "Softplus");  // η
      CHECK(step.kind != "Sqrt");      // q̃ and k̃
    }
  }
}

TEST_CASE("a memory frozen at load is read as a frozen session reads it, in a third of the state") {
  for (const unsigned bits : {0u, 8u}) {
    const TinyModel tiny(quantised(bits));
    const auto ids = random_ids(300, tiny.config.vocab);
    const auto on = load(tiny), frozen = load(tiny, with(MemoryUse::kFrozen));
    Session session(on, {.threads = 1});
    session.freeze(true);
    CHECK(run(session, ids) == run(frozen, ids));
    const auto memory = [](const Model& model) {
      size_t bytes = 0;
      for (const StateInfo& state : model.info().states)
        if (state.name.find("memory.") != std::string::npos) bytes += state.bytes;
      return bytes;
    };
    CHECK(memory(*frozen) == (memory(*on) - sizeof(float)) / 3);  // Σβ is a number
    Session fixed(frozen, {.threads = 1});
    CHECK(fixed.frozen());
    message_of([&] { fixed.freeze(false); }, ErrorCode::kInvalidArgument);
    CHECK(fixed.clone()->frozen());
    CHECK(fixed.state(5).empty());
  }
}

TEST_CASE("a window as long as the text is attention to all of it") {
  const TinyModel tiny(quantised(0));
  TinyConfig all = quantised(0);
  all.window = 400;
  const auto ids = random_ids(300, tiny.config.vocab);
  const auto logits = run(load(tiny, chosen(400, 0, {})), ids);
  all.sinks = 0;
  const auto expected = TinyModel(all).reference(ids);
  double worst = 0, largest = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    const double value = expected[i / 50][i % 50];
    worst = std::max(worst, std::fabs(double{logits[i]} - value));
    largest = std::max(largest, std::fabs(value));
  }
  // Two dozen sums of at most 300 float32 terms in a row, whose roundings have random signs: four standard
  // deviations.
  CHECK(worst < 4 * std::sqrt(24 * 300.0) * 0x1p-24 * largest);
}

TEST_CASE("the file's own window, sinks and chunk, said again, change nothing") {
  const TinyModel tiny(quantised(8));
  const auto own = load(tiny), said = load(tiny, chosen(9, 2, 6));
  CHECK(said->info().chosen.empty());
  auto writer = make_writer(own), other = make_writer(said);
  writer.read(random_ids(50, 50), LogitsFor::kNone, {});
  load_snapshot(other, nullptr, saved(writer, ""));
  CHECK(saved(other, "") == saved(writer, ""));
}

TEST_CASE("a snapshot belongs to what was chosen at load") {
  const TinyModel tiny(quantised(8));
  const std::vector<std::shared_ptr<const Model>> models = {load(tiny),
                                                            load(tiny, chosen(8, 3, {})),  // as many slots
                                                            load(tiny, chosen({}, {}, 5)),
                                                            load(tiny, chosen(20, {}, {})),
                                                            load(tiny, with(MemoryUse::kFrozen)),
                                                            load(tiny, with(MemoryUse::kOff))};
  const TempDir directory;
  for (const auto& from : models) {
    auto writer = make_writer(from);
    writer.read(random_ids(50, 50), LogitsFor::kNone, {});
    const auto bytes = saved(writer, "");
    save_snapshot_file(writer, "", directory / "memory");
    CHECK(inspect_snapshot(bytes).chosen == from->info().chosen);
    CHECK(fingerprint(*from) == fingerprint(*models[0]));
    for (const auto& to : models) {
      auto other = make_writer(to);
      if (from == to) {
        load_snapshot(other, nullptr, bytes);
        CHECK(saved(other, "") == bytes);
        continue;
      }
      for (const std::string& message :
           {message_of([&] { load_snapshot(other, nullptr, bytes); }, ErrorCode::kBadSnapshot),
            message_of([&] { load_snapshot_file(other, nullptr, directory / "memory"); },
                       ErrorCode::kBadSnapshot)}) {
        CHECK(message.find("load the model with the same choices") != std::string::npos);
        CHECK(message.find(from->info().chosen) != std::string::npos);
        CHECK(message.find(to->info().chosen) != std::string::npos);
      }
      CHECK(other.session().position() == 0);
    }
  }
}

TEST_CASE("choices that no model allows are refused with a sentence") {
  const TinyModel tiny(quantised(8));
  const auto refused = [&](const Choices& choices, const std::string& expected) {
    const std::string message = message_of([&] { load(tiny, choices); }, ErrorCode::kInvalidArgument);
    CHECK_MESSAGE(message.find(expected) != std::string::npos, message);
  };
  for (const int64_t window : {int64_t{0}, int64_t{-1}, kMaxWindow + 1, INT64_MAX, INT64_MIN})
    refused(chosen(window, {}, {}), "1 to 1048576");
  for (const int64_t sinks : {int64_t{-1}, kMaxWindow + 1}) refused(chosen({}, sinks, {}), "0 to 1048576");
  for (const int64_t chunk : {int64_t{0}, int64_t{-5}}) refused(chosen({}, {}, chunk), "1 to 1048576");
  refused(chosen(5, {}, {}), "shorter than the chunk of 6");
  refused(chosen({}, {}, 10), "shorter than the chunk of 10");
  Choices off = chosen({}, {}, 4);
  off.memory = MemoryUse::kOff;
  refused(off, "only with the memory on");
  off.chunk.reset();
  off.window = 2;  // shorter than the file's chunk, which is then of no account
  CHECK(load(tiny, off)->info().window == 2);
}

TEST_CASE("a window for which there is no room is refused with a sentence") {
  if (!kWideAddresses) return;  // 32 bits count no window as large as this
  TinyConfig wide = quantised(0);
  wide.heads = wide.kv_heads = 64;
  wide.dim = 128;
  wide.width = 8;
  wide.hidden = 2;
  Choices million = with(MemoryUse::kOff);
  million.window = kMaxWindow;
  CHECK(message_of([&] { load(TinyModel(wide), million); }, ErrorCode::kInvalidArgument)
            .find("more than 64 GiB with a window of 1048576 tokens") != std::string::npos);
  wide.heads = wide.kv_heads = 48;  // 48 GiB
  const auto model = load(TinyModel(wide), million);
  if (physical_memory() == 0 || physical_memory() > model->info().state_bytes) return;
  CHECK(message_of([&] { Session(model, {.threads = 1}); }, ErrorCode::kOutOfMemory)
            .find("with a shorter window (1048576 tokens now)") != std::string::npos);
}
