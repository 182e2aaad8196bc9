// What a snapshot promises: the session goes on bit for bit; anything wrong with it is refused and changes
// nothing; a file holds the old state or the new one.
#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "platform/file_path.h"
#include "snapshot_fixture.h"

using namespace allmem;
using namespace allmem::test;
using namespace allmem::test::snapshots;

namespace {

// --- Snapshots by hand, written from docs/memory-files.md, apart from the library's own.

struct Bytes {
  std::vector<std::byte> data;
  template <class T>
  Bytes& number(T value) {
    const auto bytes = std::as_bytes(std::span(&value, 1));
    data.insert(data.end(), bytes.begin(), bytes.end());
    return *this;
  }
  Bytes& text(std::string_view value) {
    number(uint64_t{value.size()});
    const auto bytes = std::as_bytes(std::span(value));
    data.insert(data.end(), bytes.begin(), bytes.end());
    return *this;
  }
};

struct Pieces {
  std::vector<std::byte> head, note, layout, decoding, state;

  explicit Pieces(std::span<const std::byte> snapshot) {
    const auto number = [&](size_t at) {
      uint64_t value = 0;
      std::memcpy(&value, snapshot.data() + at, sizeof value);
      return value;
    };
    size_t place = 0;
    const auto take = [&](size_t size) {
      const auto piece = snapshot.subspan(place, size);
      place += size;
      return std::vector<std::byte>(piece.begin(), piece.end());
    };
    head = take(72);
    note = take(number(32));
    layout = take(number(40));
    decoding = take(number(48));
    state = take(number(56));
    CHECK(place == snapshot.size());
  }

  template <class T>
  void set(size_t offset, T value) {
    std::memcpy(head.data() + offset, &value, sizeof value);
  }
  void set_lengths() {
    set(32, uint64_t{note.size()});
    set(40, uint64_t{layout.size()});
    set(48, uint64_t{decoding.size()});
    set(56, uint64_t{state.size()});
  }

  std::vector<std::byte> join() {
    set(64, uint64_t{0});
    uint64_t value = 0xCBF29CE484222325;
    std::vector<std::byte> all;
    for (const auto* piece : {&head, &note, &layout, &decoding, &state}) {
      value ^= piece->size();
      for (size_t i = 0; i < piece->size(); i += 8) {
        uint64_t word = 0;
        std::memcpy(&word, piece->data() + i, std::min<size_t>(8, piece->size() - i));
        value = std::rotl((value ^ word) * 0x100000001B3, 31);
      }
    }
    set(64, value);
    for (const auto* piece : {&head, &note, &layout, &decoding, &state}) {
      all.insert(all.end(), piece->begin(), piece->end());
    }
    return all;
  }
};

// The state as it lies in memory.
std::vector<std::byte> unpacked(std::span<const std::byte> packed, size_t bytes) {
  std::vector<std::byte> state(bytes);
  size_t place = (bytes + 4095) / 4096 * 8;
  for (size_t block = 0; block < bytes / 64; ++block) {
    if ((packed[block / 8] >> (block % 8) & std::byte{1}) == std::byte{0}) continue;
    std::copy_n(packed.begin() + static_cast<ptrdiff_t>(place), 64,
                state.begin() + static_cast<ptrdiff_t>(block * 64));
    place += 64;
  }
  CHECK(place == packed.size());
  return state;
}

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

TEST_CASE_FIXTURE(Fixture, "a loaded session goes on bit for bit, in mid-chunk") {
  run(writer, first());
  writer.session().freeze(true);
  const std::vector<std::byte> snapshot = saved(writer, "a note");
  writer.session().freeze(false);
  const std::vector<float> expected = run(writer, rest());

  Writer other = make_writer(model);
  const SnapshotInfo info = load_snapshot(other, nullptr, snapshot);
  CHECK(info.note == "a note");
  CHECK(info.position == 77);
  CHECK(info.frozen);
  CHECK_FALSE(info.unfinished);
  CHECK(info.fingerprint == fingerprint(*model));
  CHECK(info.states.size() == model->info().states.size());
  CHECK(info.states[3].name == model->info().states[3].name);
  CHECK(info.states[3].bytes == model->info().states[3].bytes);
  CHECK(other.session().position() == 77);
  CHECK(other.session().frozen());
  CHECK(saved(other, "a note") == snapshot);
  other.session().freeze(false);
  CHECK(run(other, rest()) == expected);
}

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

TEST_CASE_FIXTURE(Fixture, "a file that cannot be written leaves the old one and no other behind") {
  const TempDir directory;
  const std::string path = directory / "memory";
  run(writer, first());
  save_snapshot_file(writer, "old", path);
  const auto code = [](const std::function<void()>& call, ErrorCode expected) { message_of(call, expected); };
  code([&] { save_snapshot_file(writer, "", directory / "none/memory"); }, ErrorCode::kIo);
  code([&] { save_snapshot_file(writer, "", path + "/memory"); }, ErrorCode::kIo);
  code([&] { save_snapshot_file(writer, "", ""); }, ErrorCode::kInvalidArgument);
  code([&] { save_snapshot_file(writer, std::string(kMaxNote + 1, 'x'), path); },
       ErrorCode::kInvalidArgument);
  code([&] { load_snapshot_file(writer, nullptr, directory / "none"); }, ErrorCode::kNotFound);
  code([&] { load_snapshot_file(writer, nullptr, directory.path()); }, ErrorCode::kIo);
  CHECK(load_snapshot_file(writer, nullptr, path).note == "old");
  CHECK(std::distance(std::filesystem::directory_iterator(directory.path()), {}) == 1);
}

TEST_CASE_FIXTURE(Fixture, "a file's name is UTF-8, and its old content is replaced") {
  const TempDir directory;
  const std::string path = directory.path() + "/Gedächtnis-记忆-🐘";
  run(writer, first());
  save_snapshot_file(writer, "old", path);
  save_snapshot_file(writer, "new", path);
  CHECK(std::filesystem::exists(to_path(path)));
  CHECK(inspect_snapshot_file(path).note == "new");
}

TEST_CASE_FIXTURE(Fixture, "a save is refused when somebody else has changed the file since") {
  const TempDir directory;
  const std::string path = directory / "memory", copy = directory / "copy";
  run(writer, first());
  Writer other = make_writer(model);
  save_snapshot_file(other, "other's", path);
  save_snapshot_file(writer, "mine", path);  // it knew of no file there: that one is replaced
  const auto conflict = [](Writer& w, const std::string& to) {
    message_of([&] { save_snapshot_file(w, "", to); }, ErrorCode::kConflict);
  };
  conflict(other, path);
  CHECK(inspect_snapshot_file(path).note == "mine");
  std::filesystem::create_directory(directory / "folder");
  conflict(other, directory / "folder/../memory");
  save_snapshot_file(other, "", copy);  // under another name
  conflict(other, path);
  load_snapshot_file(other, nullptr, path);
  save_snapshot_file(other, "other's", path);
  conflict(writer, path);
  CHECK(load_snapshot_file(writer, nullptr, path).note == "other's");
  CHECK(std::filesystem::remove(path));
  save_snapshot_file(writer, "gone", path);
  directory.write("memory", "no memory at all");
  conflict(writer, path);
  std::unique_ptr<Writer> twin = writer.clone();
  CHECK(std::filesystem::remove(path));
  save_snapshot_file(writer, "", path);
  conflict(*twin, path);
}

TEST_CASE_FIXTURE(Fixture, "a snapshot to a callback is the same, in pieces, and from one it is loaded") {
  run(writer, first());
  const std::vector<std::byte> whole = saved(writer, "note");
  std::vector<std::byte> bytes;
  save_snapshot_to(writer, "note", [&](std::span<const std::byte> piece) {
    CHECK(piece.size() <= size_t{1} << 20);
    bytes.insert(bytes.end(), piece.begin(), piece.end());
  });
  CHECK(bytes == whole);
  struct Stop {};
  CHECK_THROWS_AS(save_snapshot_to(writer, "", [](auto) { throw Stop(); }), Stop);

  std::vector<std::pair<uint64_t, size_t>> asked;
  const SnapshotSource source{.size = whole.size(), .read = [&](uint64_t offset, std::span<std::byte> into) {
                                asked.emplace_back(offset, into.size());
                                std::copy_n(whole.begin() + static_cast<ptrdiff_t>(offset), into.size(),
                                            into.begin());
                              }};
  Writer other = make_writer(model);
  std::string seen;
  CHECK(load_snapshot(other, nullptr, source, [&](const SnapshotInfo& info) { seen = info.note; }).position ==
        77);
  CHECK(seen == "note");
  CHECK(saved(other, "note") == whole);
  // Once from the beginning to the end in order, and then the state again.
  uint64_t expected = 0;
  size_t i = 0;
  for (; expected < whole.size(); ++i) {
    CHECK(asked[i].first == expected);
    expected += asked[i].second;
  }
  CHECK(asked[i].first + asked[i].second == whole.size());
  CHECK(asked.size() == i + 1);
}

TEST_CASE_FIXTURE(Fixture, "what `accept` throws refuses a memory, and nothing has changed") {
  const TempDir directory;
  run(writer, first());
  save_snapshot_file(writer, "", directory / "memory");
  run(writer, rest());
  const std::vector<std::byte> before = saved(writer, "");
  struct No {};
  CHECK_THROWS_AS(load_snapshot_file(writer, nullptr, directory / "memory", [](const auto&) { throw No(); }),
                  No);
  CHECK(saved(writer, "") == before);
}

TEST_CASE_FIXTURE(Fixture, "a source that gives something else the second time leaves the session poisoned") {
  run(writer, first());
  const std::vector<std::byte> whole = saved(writer, "");
  int reads = 0;
  bool in_the_map = false;  // of the state's blocks
  SnapshotSource source{.size = whole.size(), .read = [&](uint64_t offset, std::span<std::byte> into) {
                          std::copy_n(whole.begin() + static_cast<ptrdiff_t>(offset), into.size(),
                                      into.begin());
                          if (++reads != 4) return;
                          (in_the_map ? into[1] : into.back()) ^= std::byte{1};
                        }};
  for (const bool at_its_beginning : {false, true}) {
    reads = 0;
    in_the_map = at_its_beginning;
    message_of([&] { load_snapshot(writer, nullptr, source); }, ErrorCode::kIo);
    CHECK(reads == 4);  // head, the rest before the state, the state; and the state again
    message_of([&] { run(writer, rest()); }, ErrorCode::kPoisoned);
  }
  load_snapshot(writer, nullptr, source);
  CHECK(saved(writer, "") == whole);
}
