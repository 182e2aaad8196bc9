// Saving where it must fail, and killed in the midst of it: in processes of their own.
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>

#include "snapshot_fixture.h"

using namespace allmem;
using namespace allmem::test;
using namespace allmem::test::snapshots;

TEST_CASE_FIXTURE(Fixture, "a pipe that nobody writes to is refused at once") {
  const TempDir directory;
  REQUIRE(::mkfifo((directory / "pipe").c_str(), 0600) == 0);
  message_of([&] { load_snapshot_file(writer, nullptr, directory / "pipe"); }, ErrorCode::kIo);
}

TEST_CASE_FIXTURE(Fixture, "a full disk and a read-only directory leave the old file and no other behind") {
  const TempDir directory;
  const std::string path = directory / "memory";
  run(writer, first());
  save_snapshot_file(writer, "old", path);
  // In a process of its own: `prepare` makes that every save must fail.
  const auto cannot_save = [&](const std::function<void()>& prepare) {
    const pid_t child = ::fork();
    if (child == 0) {
      prepare();
      bool refused = false;
      try {
        save_snapshot_file(writer, "new", path);
      } catch (const Error& error) {
        refused = error.code() == ErrorCode::kIo;
      }
      ::_exit(refused ? 0 : 1);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    CHECK(status == 0);
    CHECK(load_snapshot_file(writer, nullptr, path).note == "old");
    CHECK(std::distance(std::filesystem::directory_iterator(directory.path()), {}) == 1);
  };
  cannot_save([] {  // a full disk, as far as the file is concerned
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{1000, 1000};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  });
  ::chmod(directory.path().c_str(), 0555);
  cannot_save([] {  // a directory that is only for reading; not to the superuser, who has to become nobody
    if (::geteuid() == 0 && ::setuid(65534) != 0) ::_exit(0);
  });
  ::chmod(directory.path().c_str(), 0755);
}

// ALLMEM_KILLS=1000 for the full number; CI has less time.
TEST_CASE_FIXTURE(Fixture, "killed at any moment of a save, the file holds the old state or the new one") {
  const TempDir directory;
  const std::string path = directory / "memory";
  run(writer, first());
  save_snapshot_file(writer, "0", path);
  const char* const wanted = std::getenv("ALLMEM_KILLS");
  const int rounds = wanted != nullptr ? std::atoi(wanted) : 100;
  // The n-th save is of the state after n more tokens.
  const auto step = [&](Writer& w, uint64_t n) {
    w.read(std::span(ids).subspan(n % ids.size(), 1), LogitsFor::kLast, {});
  };
  // Reads and saves until it is killed, and tells of every save that is done.
  const auto start_child = [&](uint64_t at, int(&done)[2]) {
    REQUIRE(::pipe(done) == 0);
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      for (uint64_t n = at + 1;; ++n) {
        step(writer, n);
        save_snapshot_file(writer, std::to_string(n), path);
        if (::write(done[1], "x", 1) != 1) ::_exit(1);
      }
    }
    ::close(done[1]);
    return child;
  };
  // From a fork to its first save, which takes far longer under a sanitizer than the same save in this
  // process.
  const auto begin = std::chrono::steady_clock::now();
  int done[2];
  char one;
  const pid_t first_child = start_child(0, done);
  REQUIRE(::read(done[0], &one, 1) == 1);
  const auto first_save =
      std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - begin);
  ::kill(first_child, SIGKILL);
  ::waitpid(first_child, nullptr, 0);
  ::close(done[0]);
  save_snapshot_file(writer, "0", path);
  Writer expected = make_writer(model);
  load_snapshot_file(expected, nullptr, path);
  uint64_t at = 0;
  int cut_off = 0;  // kills that came while a save had its temporary file
  std::mt19937 random(3);
  for (int round = 0; round < rounds; ++round) {
    const pid_t child = start_child(at, done);
    ::usleep(static_cast<useconds_t>(random() % (2 * static_cast<uint64_t>(first_save.count()) + 1)));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    uint64_t told = 0;
    for (char ignored[256];;) {
      const ssize_t count = ::read(done[0], ignored, sizeof ignored);
      if (count <= 0) break;
      told += static_cast<uint64_t>(count);
    }
    ::close(done[0]);
    Writer loaded = make_writer(model);
    SnapshotInfo info;
    REQUIRE_NOTHROW(info = load_snapshot_file(loaded, nullptr, path));
    const uint64_t now = std::stoull(info.note);
    REQUIRE(now >= at + told);      // what was said to be saved is there
    REQUIRE(now <= at + told + 1);  // and at most the save that was cut off
    while (at < now) step(expected, ++at);
    REQUIRE(saved(loaded, "") == saved(expected, ""));
    load_snapshot_file(writer, nullptr, path);  // what the next child goes on from
    for (const auto& entry : std::filesystem::directory_iterator(directory.path())) {
      if (entry.path() != path) cut_off += std::filesystem::remove(entry.path());
    }
  }
  MESSAGE(rounds << " kills, of which " << cut_off << " in the middle of a save; " << at << " saves done");
  CHECK(at > 0);
}
