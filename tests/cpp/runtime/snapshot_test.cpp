// What a snapshot promises: the session goes on bit for bit; anything wrong with it is refused and changes
// nothing; a file holds the old state or the new one.
#include "runtime/snapshot.h"

#include <doctest/doctest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <filesystem>
#include <functional>
#include <random>

#include "../temp_dir.h"
#include "../tiny_model.h"
#include "platform/error.h"

using namespace allmem;
using namespace allmem::test;

namespace {

std::shared_ptr<const Model> load(const TinyModel& tiny) {
  const TempDir directory;
  directory.write("model.onnx", tiny.builder().build());
  return Model::load(directory.path());
}

std::vector<int32_t> random_ids(size_t count, int64_t vocab) {
  std::mt19937 random(7);
  std::uniform_int_distribution<int32_t> id(0, static_cast<int32_t>(vocab - 1));
  std::vector<int32_t> ids(count);
  for (int32_t& value : ids) value = id(random);
  return ids;
}

std::vector<float> run(Session& session, std::span<const int32_t> ids) {
  std::vector<float> logits(ids.size() * static_cast<size_t>(session.model().info().vocab_size));
  session.forward(ids, LogitsFor::kAll, logits);
  return logits;
}

struct Fixture {
  TinyModel tiny;
  std::shared_ptr<const Model> model = load(tiny);
  std::vector<int32_t> ids = random_ids(200, model->info().vocab_size);
  Session session{model, {.threads = 1}};
  std::span<const int32_t> first() const { return std::span(ids).first(77); }  // ends in mid-chunk
  std::span<const int32_t> rest() const { return std::span(ids).subspan(77); }
};

ErrorCode error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    CHECK(std::string(error.what()).ends_with("."));
    return error.code();
  }
  FAIL("was accepted");
  return ErrorCode::kInvalidArgument;
}

std::vector<std::byte> state_of(const Session& session) {
  const auto state = session.state_memory();
  return {state.begin(), state.end()};
}

// Written from docs/format.md, apart from the library's own.
void write_checksum(std::vector<std::byte>& snapshot) {
  constexpr size_t kHead = 56, kPlace = 48;
  std::fill_n(snapshot.begin() + kPlace, 8, std::byte{0});
  uint64_t value = 0xCBF29CE484222325;
  for (const auto& [begin, end] : {std::pair{size_t{0}, kHead}, std::pair{kHead, snapshot.size()}}) {
    value ^= end - begin;
    for (size_t i = begin; i < end; i += 8) {
      uint64_t word = 0;
      std::memcpy(&word, snapshot.data() + i, std::min<size_t>(8, end - i));
      value = std::rotl((value ^ word) * 0x100000001B3, 31);
    }
  }
  std::memcpy(snapshot.data() + kPlace, &value, sizeof value);
}

}  // namespace

TEST_CASE_FIXTURE(Fixture, "a loaded session goes on bit for bit, in mid-chunk") {
  run(session, first());
  session.freeze(true);
  const std::vector<std::byte> snapshot = save_snapshot(session, "a note");
  session.freeze(false);
  const std::vector<float> expected = run(session, rest());

  Session other(model, {.threads = 1});
  const SnapshotInfo info = load_snapshot(other, snapshot);
  CHECK(info.note == "a note");
  CHECK(info.position == 77);
  CHECK(other.position() == 77);
  CHECK(other.frozen());
  other.freeze(false);
  CHECK(run(other, rest()) == expected);
}

TEST_CASE_FIXTURE(Fixture,
                  "a snapshot cut anywhere or with any byte changed is refused and changes nothing") {
  run(session, first());
  std::vector<std::byte> snapshot = save_snapshot(session, "note");
  run(session, rest());
  const std::vector<std::byte> before = state_of(session);
  std::mt19937 random(1);
  for (size_t size = 0; size < snapshot.size(); size += size < 80 ? 1 : 97) {
    CHECK(error_of([&] { load_snapshot(session, std::span(snapshot).first(size)); }) ==
          ErrorCode::kBadSnapshot);
  }
  for (size_t i = 0; i < snapshot.size(); ++i) {
    const std::byte old = snapshot[i];
    snapshot[i] ^= static_cast<std::byte>(1 + random() % 255);
    CHECK(error_of([&] { load_snapshot(session, snapshot); }) == ErrorCode::kBadSnapshot);
    snapshot[i] = old;
  }
  snapshot.push_back(std::byte{0});
  CHECK(error_of([&] { load_snapshot(session, snapshot); }) == ErrorCode::kBadSnapshot);
  CHECK(state_of(session) == before);
  CHECK(session.position() == ids.size());
}

TEST_CASE_FIXTURE(Fixture, "hand-made heads are refused though their checksum is right, and change nothing") {
  run(session, first());
  const std::vector<std::byte> good = save_snapshot(session, "a note");
  const std::vector<std::byte> before = state_of(session);
  struct Change {
    size_t offset, size;  // of the head's field, docs/format.md
    uint64_t value;
  };
  constexpr uint64_t kMax = ~uint64_t{0};
  const uint64_t state = before.size();
  const std::vector<Change> changes = {{0, 1, 'B'},
                                       {7, 1, 0},
                                       {0, 8, 0},
                                       {0, 8, kMax},
                                       {8, 4, 0},
                                       {8, 4, 1},
                                       {8, 4, 3},
                                       {8, 4, 0xFFFFFFFF},
                                       {8, 4, 0x01000000},
                                       {12, 4, 2},
                                       {12, 4, 0x100},
                                       {12, 4, 0xFFFFFFFF},
                                       {16, 8, 0},
                                       {16, 8, kMax},
                                       {24, 8, kMax},
                                       {24, 8, (uint64_t{1} << 53) + 1},
                                       {32, 8, 0},
                                       {32, 8, 5},
                                       {32, 8, 7},
                                       {32, 8, kMax},
                                       {32, 8, kMaxNote + 1},
                                       {32, 8, kMax - 50},
                                       {40, 8, 0},
                                       {40, 8, state - 1},
                                       {40, 8, state + 1},
                                       {40, 8, kMax},
                                       {40, 8, kMax - 100},
                                       {40, 8, uint64_t{1} << 63},
                                       {32, 8, uint64_t{1} << 63}};
  CHECK(changes.size() >= 25);
  for (const Change& change : changes) {
    std::vector<std::byte> bad = good;
    std::memcpy(bad.data() + change.offset, &change.value, change.size);
    write_checksum(bad);
    CAPTURE(change.offset);
    CAPTURE(change.value);
    const ErrorCode code = error_of([&] { load_snapshot(session, bad); });
    CHECK((code == ErrorCode::kBadSnapshot || code == ErrorCode::kInvalidArgument));
    CHECK(state_of(session) == before);
    CHECK(session.position() == 77);
  }
  std::vector<std::byte> same = good;
  write_checksum(same);
  CHECK(same == good);  // so it is the fields that were refused
}

TEST_CASE_FIXTURE(Fixture, "a snapshot of another model is refused, of another shape or other weights") {
  run(session, first());
  const std::vector<std::byte> snapshot = save_snapshot(session, "");
  TinyConfig wide;
  wide.window += 1;
  const TinyModel wider(wide);
  TinyModel retrained;
  retrained.weights.at("wo")[3] += 0.5f;
  for (const TinyModel& tiny_model : {wider, retrained}) {
    Session other(load(tiny_model), {.threads = 1});
    CHECK(error_of([&] { load_snapshot(other, snapshot); }) == ErrorCode::kBadSnapshot);
    CHECK(other.position() == 0);
  }
}

TEST_CASE_FIXTURE(Fixture, "a file that cannot be written leaves the old one and no other behind") {
  const TempDir directory;
  const std::string path = directory / "memory";
  run(session, first());
  save_snapshot_file(session, "old", path);
  CHECK(error_of([&] { save_snapshot_file(session, "", directory / "none/memory"); }) == ErrorCode::kIo);
  CHECK(error_of([&] { save_snapshot_file(session, "", ""); }) == ErrorCode::kInvalidArgument);
  CHECK(error_of([&] { load_snapshot_file(session, directory / "none"); }) == ErrorCode::kNotFound);
  CHECK(error_of([&] { load_snapshot_file(session, directory.path()); }) == ErrorCode::kIo);

  const pid_t child = ::fork();  // the limit on file sizes stands for a full disk
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{1000, 1000};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    bool refused = false;
    try {
      save_snapshot_file(session, "new", path);
    } catch (const Error& error) {
      refused = error.code() == ErrorCode::kIo;
    }
    ::_exit(refused ? 0 : 1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  CHECK(status == 0);
  CHECK(load_snapshot_file(session, path).note == "old");
  CHECK(std::distance(std::filesystem::directory_iterator(directory.path()), {}) == 1);
}

TEST_CASE_FIXTURE(Fixture, "killed at any moment of a save, the file holds the old state or the new one") {
  const TempDir directory;
  const std::string path = directory / "memory";
  run(session, first());
  save_snapshot_file(session, "0", path);
  std::mt19937 random(3);
  for (int round = 0; round < 1000; ++round) {
    const pid_t child = ::fork();
    if (child == 0) {
      for (int i = 1;; ++i) save_snapshot_file(session, std::to_string(i), path);
    }
    ::usleep(random() % 3000);
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    Session other(model, {.threads = 1});
    REQUIRE_NOTHROW(load_snapshot_file(other, path));
    REQUIRE(state_of(other) == state_of(session));
  }
}
