// What a snapshot promises: the session goes on bit for bit, wherever the bytes come from.
#include <algorithm>

#include "snapshot_fixture.h"

using namespace allmem;
using namespace allmem::test;
using namespace allmem::test::snapshots;

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
