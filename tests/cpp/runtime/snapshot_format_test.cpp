// Snapshots of older formats load; and what those of today hold, and how large they are.
#include <algorithm>
#include <cmath>

#include "snapshot_fixture.h"
#include "snapshot_pieces.h"

using namespace allmem;
using namespace allmem::test;
using namespace allmem::test::snapshots;

TEST_CASE_FIXTURE(Fixture,
                  "a snapshot holds no zeros: it grows as the window fills, and never beyond the state") {
  const size_t state = writer.session().state_bytes(), own = saved(writer, "").size();
  run(writer, std::span(ids).first(3));
  const size_t three = saved(writer, "").size();
  run(writer, rest());
  const Pieces full(saved(writer, ""));
  size_t weights = 0, window = 0;  // the weights are there from the start
  for (const StateInfo& part : model->info().states) {
    if (part.name.find("memory.weight.") != std::string::npos) weights += part.bytes;
    if (part.name.find("attention.") != std::string::npos) window += part.bytes;
  }
  CHECK(own < weights + 2500);  // and what else a snapshot has
  CHECK(own + 64 <= three);
  CHECK(three < own + state / 4);
  CHECK(full.state.size() <= state + state / 512 + 8);
  CHECK(full.state.size() > weights + window);
}

TEST_CASE("a fast session's memory takes a quarter of float32's bytes, and none of a new one's snapshot") {
  const auto fast = load(TinyModel(quantised(8))), exact = load(TinyModel(quantised(8)), Precision::kExact);
  size_t weights = 0;
  for (size_t i = 0; i < fast->info().states.size(); ++i) {
    const StateInfo &in_8_bits = fast->info().states[i], &floats = exact->info().states[i];
    const bool matrix = fast->program().states[i].form == StateForm::kDifference;
    CHECK(matrix == (in_8_bits.name.find(".beta_sum") == std::string::npos &&
                     in_8_bits.name.find("attention.") == std::string::npos));
    if (!matrix) continue;
    CHECK(in_8_bits.shape == floats.shape);
    CHECK(in_8_bits.bytes == floats.bytes / 4 + floats.bytes / 64);  // and a scale for 64
    if (floats.name.find("weight") != std::string::npos) weights += floats.bytes;
  }
  const auto state_of = [](const std::shared_ptr<const Model>& model) {
    return Pieces(saved(make_writer(model), "")).state.size();
  };
  CHECK(state_of(exact) >= weights);
  CHECK(state_of(fast) == (fast->info().state_bytes + 4095) / 4096 * 8);  // the map alone
}

TEST_CASE_FIXTURE(Fixture, "a snapshot of format 3, with the state as it lies in memory, loads") {
  run(writer, first());
  const std::vector<std::byte> snapshot = saved(writer, "old");
  const std::vector<float> expected = run(writer, rest());
  Pieces pieces(snapshot);
  pieces.state = unpacked(pieces.state, writer.session().state_bytes());
  pieces.set(8, uint32_t{3});
  pieces.set_lengths();
  const std::vector<std::byte> old = pieces.join();
  CHECK(inspect_snapshot(old).format == 3);
  CHECK(inspect_snapshot(old).state_bytes == writer.session().state_bytes());
  CHECK(load_snapshot(writer, nullptr, old).note == "old");
  CHECK(saved(writer, "old") == snapshot);
  CHECK(run(writer, rest()) == expected);

  const std::vector<std::byte> before = saved(writer, "");
  for (const size_t bytes : {size_t{0}, pieces.state.size() - 64, pieces.state.size() + 64}) {
    Pieces other = pieces;
    other.state.resize(bytes), other.set_lengths();
    refused(other.join());
  }
  CHECK(saved(writer, "") == before);
}

namespace {

// The layout and the state of a fast session as they were until format 4: memories in float32.
void make_older(Pieces& pieces, const Session& session) {
  const std::vector<std::byte> now = unpacked(pieces.state, session.state_bytes());
  Bytes layout;
  std::vector<std::byte> state;
  const auto aligned = [&] { state.resize((state.size() + 63) / 64 * 64); };
  size_t place = 0;
  const std::vector<StateInfo>& states = session.model().info().states;
  for (size_t i = 0; i < states.size(); ++i) {
    const bool matrix = session.model().program().states[i].form == StateForm::kDifference;
    const bool window = states[i].name.starts_with("attention.");
    std::vector<std::byte> part(now.begin() + static_cast<ptrdiff_t>(place),
                                now.begin() + static_cast<ptrdiff_t>(place + states[i].bytes));
    if (matrix) {
      const auto values = session.state(i);
      const auto bytes = std::as_bytes(std::span(values));
      part.assign(bytes.begin(), bytes.end());
    }
    layout.text(states[i].name).number(uint8_t{window}).number(uint64_t{part.size()});
    state.insert(state.end(), part.begin(), part.end());
    aligned();
    place += (states[i].bytes + 63) / 64 * 64;
  }
  layout.text("").number(uint8_t{1}).number(uint64_t{now.size() - place});
  state.insert(state.end(), now.begin() + static_cast<ptrdiff_t>(place), now.end());
  pieces.layout = layout.data;
  pieces.state = state;
  pieces.set(8, uint32_t{3});
  pieces.set_lengths();
}

}  // namespace

TEST_CASE("a fast session's snapshot of format 3, whose memory is float32, loads as near as 8 bits are") {
  TinyConfig config = quantised(8);
  config.window = 60;
  config.chunk = 48;
  const auto model = load(TinyModel(config));
  Writer writer = make_writer(model);
  const auto ids = random_ids(130, config.vocab);
  run(writer, ids);  // of a chunk 34 tokens: a gradient, and two that wait
  Pieces pieces(saved(writer, "old"));
  make_older(pieces, writer.session());
  const std::vector<std::byte> old = pieces.join();
  CHECK(inspect_snapshot(old).format == 3);
  CHECK(inspect_snapshot(old).state_bytes == pieces.state.size());
  Writer other = make_writer(model);
  CHECK(load_snapshot(other, nullptr, old).note == "old");
  const auto& states = model->program().states;
  for (size_t i = 0; i < states.size(); ++i) {
    if (states[i].form == StateForm::kOwn) continue;
    CAPTURE(states[i].name);
    const auto was = writer.session().state(i), is = other.session().state(i);
    float most = 0;
    for (size_t j = 0; j < was.size(); ++j) {
      const float start = states[i].initial.empty() ? 0.0f : states[i].initial[j];
      most = std::max(most, std::fabs(was[j] - start));
    }
    CHECK(most > 0);
    // At most half a step of 127, and float32's roundings of the numbers themselves.
    for (size_t j = 0; j < was.size(); ++j)
      CHECK(std::fabs(was[j] - is[j]) <= most / 254 + 0x1p-22f * (most + std::fabs(was[j])));
  }
  const Pieces again(saved(other, "old"));
  CHECK(again.state.size() <= Pieces(saved(writer, "old")).state.size() + 64);
  CHECK(again.layout == Pieces(saved(writer, "old")).layout);

  // The older layout belongs to the older formats alone, and today's to today's.
  const std::vector<std::byte> before = saved(writer, "");
  const auto refuse = [&](Pieces bad) {
    message_of([&] { load_snapshot(writer, nullptr, bad.join()); }, ErrorCode::kBadSnapshot);
    CHECK(saved(writer, "") == before);
  };
  Pieces newer = pieces;
  newer.set(8, uint32_t{5});
  refuse(newer);
  Pieces older(saved(writer, ""));
  older.set(8, uint32_t{4});
  refuse(older);
  for (const size_t bytes : {size_t{0}, pieces.state.size() - 64, pieces.state.size() + 64}) {
    Pieces cut = pieces;
    cut.state.resize(bytes), cut.set_lengths();
    refuse(cut);
  }
}
