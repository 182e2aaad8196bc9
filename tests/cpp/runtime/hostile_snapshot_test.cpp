// What is wrong with a snapshot, by chance or by hand, or of another model, is refused and changes nothing.
#include <algorithm>
#include <cstring>
#include <limits>

#include "snapshot_fixture.h"
#include "snapshot_pieces.h"

using namespace allmem;
using namespace allmem::test;
using namespace allmem::test::snapshots;

namespace {

struct Decoding {
  float temperature = 0.7f, top_p = 1.0f, min_p = 0.0f, penalty = 1.0f;
  int32_t top_k = 0, window = 4;
  uint64_t random[4] = {1, 2, 3, 4};
  std::vector<int32_t> recent = {5, 6};
  size_t logits = 37;
  uint8_t has_text = 0;
  std::vector<std::byte> bytes() const {
    Bytes b;
    b.number(temperature).number(top_k).number(top_p).number(min_p).number(penalty).number(window);
    b.number(uint64_t{9});
    for (const uint64_t word : random) b.number(word);
    b.number(uint64_t{recent.size()});
    for (const int32_t id : recent) b.number(id);
    b.number(uint64_t{logits});
    for (size_t i = 0; i < logits; ++i) b.number(0.5f);
    b.number(has_text);
    return b.data;
  }
};

}  // namespace

TEST_CASE_FIXTURE(Fixture,
                  "a snapshot cut anywhere or with any byte changed is refused and changes nothing") {
  run(writer, first());
  std::vector<std::byte> snapshot = saved(writer, "note");
  run(writer, rest());
  const std::vector<std::byte> before = saved(writer, "");
  std::mt19937 random(1);
  for (size_t size = 0; size < snapshot.size(); size += size < 1500 ? 1 : 97) {
    refused(std::span(snapshot).first(size));
  }
  for (size_t i = 0; i < snapshot.size(); ++i) {
    const std::byte old = snapshot[i];
    snapshot[i] ^= static_cast<std::byte>(1 + random() % 255);
    refused(snapshot);
    snapshot[i] = old;
  }
  snapshot.push_back(std::byte{0});
  refused(snapshot);
  CHECK(saved(writer, "") == before);
}

TEST_CASE_FIXTURE(Fixture,
                  "hand-made snapshots are refused though their checksum is right, and change nothing") {
  run(writer, first());
  const Pieces good(saved(writer, "a note"));
  const std::vector<std::byte> before = saved(writer, "");
  int count = 0;
  const auto bad = [&](const std::function<void(Pieces&)>& change) {
    Pieces pieces = good;
    change(pieces);
    CAPTURE(count);
    refused(pieces.join());
    CHECK(saved(writer, "") == before);
    ++count;
  };
  const auto bad_head = [&](size_t offset, auto value) { bad([&](Pieces& p) { p.set(offset, value); }); };
  constexpr uint64_t kMax = ~uint64_t{0}, kTop = uint64_t{1} << 63;
  // magic, format, flags
  bad_head(0, 'B');
  bad_head(7, '\0');
  bad_head(0, uint64_t{0});
  for (const uint32_t format : {0u, 1u, 2u, 3u, 6u, 0x01000000u, ~0u}) bad_head(8, format);
  for (const uint32_t flags : {4u, 8u, 0x100u, 0x80000000u, ~0u}) bad_head(12, flags);
  // fingerprint, position
  for (const uint64_t value : {uint64_t{0}, kMax}) bad_head(16, value);
  for (const uint64_t value : {(uint64_t{1} << 53) + 1, kTop, kMax}) bad_head(24, value);
  // lengths
  const auto lengths = [&](size_t offset, uint64_t right) {
    for (const uint64_t value : {uint64_t{0}, right - 1, right + 1, kTop, kMax, kMax - 71 - right}) {
      bad_head(offset, value);
    }
  };
  lengths(32, good.note.size());
  lengths(40, good.layout.size());
  lengths(48, good.decoding.size());
  lengths(56, good.state.size());
  bad_head(32, uint64_t{kMaxNote + 1});
  bad([](Pieces& p) {  // the sum is right, and a part of it is not
    p.set(32, uint64_t{p.note.size() + 1});
    p.set(56, uint64_t{p.state.size() - 1});
  });
  // sections of another length, said rightly
  bad([](Pieces& p) { p.state.resize(p.state.size() - 64), p.set_lengths(); });
  bad([](Pieces& p) { p.state.clear(), p.set_lengths(); });
  bad([](Pieces& p) { p.state.insert(p.state.end(), 64, std::byte{1}), p.set_lengths(); });
  // maps of the state's blocks
  const size_t map_bytes = (writer.session().state_bytes() + 4095) / 4096 * 8;
  bad([&](Pieces& p) { p.state[map_bytes - 1] |= std::byte{0x80}; });  // a block beyond the end
  bad([&](Pieces& p) {
    p.state[map_bytes - 1] |= std::byte{0x80};
    p.state.insert(p.state.end(), 64, std::byte{1}), p.set_lengths();
  });
  bad([](Pieces& p) { p.state[0] ^= std::byte{1}; });  // a block more or less than there is
  bad([&](Pieces& p) { p.state.resize(map_bytes), p.set_lengths(); });
  bad([&](Pieces& p) { p.state.resize(map_bytes - 8), p.set_lengths(); });
  bad([](Pieces& p) { p.decoding.clear(), p.set_lengths(); });
  bad([](Pieces& p) { p.decoding.push_back(std::byte{0}), p.set_lengths(); });
  bad([](Pieces& p) { p.decoding.pop_back(), p.set_lengths(); });
  bad([](Pieces& p) { p.note.resize(kMaxNote + 1), p.set_lengths(); });
  // layouts
  bad([](Pieces& p) { p.layout.clear(), p.set_lengths(); });
  bad([](Pieces& p) { p.layout.pop_back(), p.set_lengths(); });
  bad([](Pieces& p) { p.layout.push_back(std::byte{0}), p.set_lengths(); });
  bad([](Pieces& p) { p.layout[8] ^= std::byte{1}; });                                           // a name
  bad([](Pieces& p) { std::fill_n(p.layout.begin(), 8, std::byte{0xFF}); });                     // its length
  bad([](Pieces& p) { p.layout[8 + std::strlen("attention.keys.state")] = std::byte{2}; });      // its form
  bad([](Pieces& p) { p.layout[8 + std::strlen("attention.keys.state") + 8] = std::byte{1}; });  // its size
  // decoding
  const auto bad_decoding = [&](const std::function<void(Decoding&)>& change) {
    bad([&](Pieces& p) {
      Decoding decoding;
      change(decoding);
      p.decoding = decoding.bytes();
      p.set_lengths();
    });
  };
  bad_decoding([](Decoding& d) { d.temperature = -1; });
  bad_decoding([](Decoding& d) { d.temperature = std::numeric_limits<float>::quiet_NaN(); });
  bad_decoding([](Decoding& d) { d.top_k = -1; });
  bad_decoding([](Decoding& d) { d.top_p = 0; });
  bad_decoding([](Decoding& d) { d.min_p = 2; });
  bad_decoding([](Decoding& d) { d.penalty = 0; });
  bad_decoding([](Decoding& d) { d.window = -1; });
  bad_decoding([](Decoding& d) { d.window = std::numeric_limits<int32_t>::max(); });
  bad_decoding([](Decoding& d) { std::fill_n(d.random, 4, uint64_t{0}); });
  bad_decoding([](Decoding& d) { d.recent = {37}; });
  bad_decoding([](Decoding& d) { d.recent = {-1}; });
  bad_decoding([](Decoding& d) { d.recent = {1, 2, 3, 4, 5}; });  // more than the window
  bad_decoding([](Decoding& d) { d.logits = 36; });
  bad_decoding([](Decoding& d) { d.logits = 38; });
  bad_decoding([](Decoding& d) { d.has_text = 2; });
  CHECK(count >= 60);

  Pieces same = good;
  CHECK(same.join() == saved(writer, "a note"));  // so it is the changes that were refused
  same.decoding = Decoding().bytes();
  same.set_lengths();
  CHECK_NOTHROW(load_snapshot(writer, nullptr, same.join()));
  CHECK(saved(writer, "a note") == same.join());
}

TEST_CASE_FIXTURE(Fixture, "a snapshot of another model is refused, of another shape or other weights") {
  run(writer, first());
  const std::vector<std::byte> snapshot = saved(writer, "");
  const TempDir directory;
  save_snapshot_file(writer, "", directory / "memory");
  TinyConfig wide;
  wide.window += 1;
  const TinyModel wider(wide);
  TinyModel retrained;
  retrained.weights.at("wo")[3] += 0.5f;
  for (const TinyModel& tiny_model : {wider, retrained}) {
    Writer other = make_writer(load(tiny_model));
    const auto say = [&](const std::function<void()>& call) {
      return message_of(call, ErrorCode::kBadSnapshot);
    };
    CHECK(say([&] { load_snapshot(other, nullptr, snapshot); }).find("another model") != std::string::npos);
    const std::string path = directory / "memory";
    CHECK(say([&] { load_snapshot_file(other, nullptr, path); }).find("another model") != std::string::npos);
    CHECK(other.session().position() == 0);
  }
}

TEST_CASE("a snapshot of a session that keeps its state in another form is refused, saying so") {
  const TinyModel tiny({.width = 64, .heads = 2, .kv_heads = 1, .dim = 32, .bits = 4});
  const TempDir directory;
  directory.write("model.onnx", tiny.builder().build());
  for (const bool exact : {false, true}) {
    CAPTURE(exact);
    Writer writer = make_writer(Model::load(directory.path(), exact ? Precision::kExact : Precision::kFast));
    const std::vector<std::byte> before = saved(writer, "");
    const auto say = [&](uint32_t flags, const char* expected) {
      Pieces pieces(before);
      pieces.set(12, flags);
      std::byte& form = pieces.layout[8 + std::strlen("attention.keys.state")];
      form ^= std::byte{1};
      const std::string message =
          message_of([&] { load_snapshot(writer, nullptr, pieces.join()); }, ErrorCode::kBadSnapshot);
      CAPTURE(message);
      CHECK(message.find(expected) != std::string::npos);
      CHECK(saved(writer, "") == before);
    };
    say(exact ? 0 : 2, exact ? "saved by a fast session" : "saved by an exact session");
    say(exact ? 2 : 0, "another layout than this version");
  }
}
