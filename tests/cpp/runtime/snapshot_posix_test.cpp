// Saving where it must fail, and killed in the midst of it: in processes of their own.
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#ifdef __linux__
#include <sched.h>
#include <sys/mount.h>
#include <sys/xattr.h>
#endif
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <sstream>
#include <thread>

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

namespace {

// ALLMEM_KILLS=1000 for the full number; CI has less time.
int kills() {
  const char* const wanted = std::getenv("ALLMEM_KILLS");
  return wanted != nullptr ? std::atoi(wanted) : 100;
}

size_t files_in(const std::string& folder) {
  return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(folder), {}));
}

std::string text_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// A process that runs `body` until it is killed, and tells of what it has done.
class Child {
 public:
  explicit Child(const std::function<void(const std::function<void()>& tell)>& body) {
    REQUIRE(::pipe(pipe_) == 0);
    process_ = ::fork();
    REQUIRE(process_ >= 0);
    if (process_ == 0) {
      try {
        body([&] {
          if (::write(pipe_[1], "x", 1) != 1) ::_exit(1);
        });
      } catch (const std::exception& reason) {
        std::cerr << "a process ended by itself: " << reason.what() << std::endl;
      }
      ::_exit(1);
    }
    ::close(pipe_[1]);
  }
  void wait_for_one() {
    char one;
    REQUIRE(::read(pipe_[0], &one, 1) == 1);
    ++told_;
  }
  // Kills it, and returns of how much it has told.
  uint64_t kill() {
    int status = 0;
    ::kill(process_, SIGKILL);
    ::waitpid(process_, &status, 0);
    CHECK(WIFSIGNALED(status));  // it did not end by itself
    char ignored[256];
    for (ssize_t count; (count = ::read(pipe_[0], ignored, sizeof ignored)) > 0;)
      told_ += static_cast<uint64_t>(count);
    ::close(pipe_[0]);
    return told_;
  }

 private:
  int pipe_[2];
  pid_t process_;
  uint64_t told_ = 0;
};

// The n-th save is of the state after n more tokens.
void step(Fixture& at, Writer& writer, uint64_t n) {
  writer.read(std::span(at.ids).subspan(n % at.ids.size(), 1), LogitsFor::kLast, {});
}

// Kills processes that save to `path`, at random moments; `folder` is where the file itself lies, alone.
void kill_and_load(Fixture& fixture, const std::string& path, const std::string& folder) {
  Writer& writer = fixture.writer;
  run(writer, fixture.first());
  save_snapshot_file(writer, "0", path);
  const auto start_child = [&](uint64_t at) {
    return Child([&, at](const auto& tell) {
      for (uint64_t n = at + 1;; ++n) {
        step(fixture, writer, n);
        save_snapshot_file(writer, std::to_string(n), path);
        tell();
      }
    });
  };
  // From a fork to its first save, which takes far longer under a sanitizer than the same save in this
  // process.
  const auto begin = std::chrono::steady_clock::now();
  Child first_child = start_child(0);
  first_child.wait_for_one();
  const auto first_save =
      std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - begin);
  first_child.kill();
  Writer expected = make_writer(fixture.model);
  uint64_t at = std::stoull(load_snapshot_file(expected, nullptr, path).note);
  load_snapshot_file(writer, nullptr, path);
  int cut_off = 0;  // kills that came while a save had its new file
  std::mt19937 random(3);
  for (int round = 0; round < kills(); ++round) {
    Child child = start_child(at);
    ::usleep(static_cast<useconds_t>(random() % (2 * static_cast<uint64_t>(first_save.count()) + 1)));
    const uint64_t told = child.kill();
    cut_off += files_in(folder) > 1;
    Writer loaded = make_writer(fixture.model);
    SnapshotInfo info;
    REQUIRE_NOTHROW(info = load_snapshot_file(loaded, nullptr, path));
    REQUIRE(files_in(folder) == 1);  // what the save that was cut off left is gone
    const uint64_t now = std::stoull(info.note);
    REQUIRE(now >= at + told);      // what was said to be saved is there
    REQUIRE(now <= at + told + 1);  // and at most the save that was cut off
    while (at < now) step(fixture, expected, ++at);
    REQUIRE(saved(loaded, "") == saved(expected, ""));
    load_snapshot_file(writer, nullptr, path);  // what the next child goes on from
  }
  MESSAGE(kills() << " kills, of which " << cut_off << " in the middle of a save; " << at << " saves done");
  CHECK(at > 0);
}

}  // namespace

TEST_CASE_FIXTURE(Fixture, "killed at any moment of a save, the file holds the old state or the new one") {
  const TempDir directory;
  kill_and_load(*this, directory / "memory", directory.path());
}

TEST_CASE_FIXTURE(Fixture, "so it does behind symbolic links, which stay") {
  const TempDir links, directory;
  std::filesystem::create_symlink(directory / "memory", links / "second");  // to nothing as yet
  std::filesystem::create_symlink("second", links / "first");
  kill_and_load(*this, links / "first", directory.path());
  CHECK(std::filesystem::read_symlink(links / "first") == "second");
  CHECK(std::filesystem::is_symlink(links / "second"));
  CHECK(std::filesystem::is_regular_file(std::filesystem::symlink_status(directory / "memory")));
}

#ifdef __linux__
TEST_CASE_FIXTURE(Fixture,
                  "so it does where a file is a mount of its own, and can only be written in place") {
  const TempDir directory, elsewhere;
  const std::string path = directory.write("memory", ""), inside = elsewhere.write("inside", "");
  // In a mount namespace of its own, which this program then stays in.
  if (::unshare(CLONE_NEWNS) != 0 || ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
      ::mount(inside.c_str(), path.c_str(), nullptr, MS_BIND, nullptr) != 0) {
    MESSAGE("not tried: this process may mount nothing");
    return;
  }
  kill_and_load(*this, path, directory.path());
  CHECK(inspect_snapshot_file(inside).position > 77);
  CHECK(delete_snapshot_file(path));
  CHECK(std::filesystem::file_size(inside) == 0);  // a mount cannot be removed
  CHECK(::umount(path.c_str()) == 0);
}
#endif

TEST_CASE_FIXTURE(Fixture,
                  "two processes on one file: each is told when the other has saved, and nothing is lost") {
  const TempDir directory;
  const std::string path = directory / "memory";
  run(writer, first());
  save_snapshot_file(writer, "0 0", path);
  using Counts = std::array<uint64_t, 2>;
  const auto counts_of = [](const std::string& note) {
    Counts counts;
    std::istringstream(note) >> counts[0] >> counts[1];
    return counts;
  };
  // Adds one to its own count at every save, on top of what the other has saved.
  const auto start_child = [&](size_t who) {
    return Child([&, who](const auto& tell) {
      for (Counts counts = counts_of(load_snapshot_file(writer, nullptr, path).note);;) {
        step(*this, writer, counts[0] + counts[1] + 1);
        ++counts[who];
        try {
          save_snapshot_file(writer, std::to_string(counts[0]) + " " + std::to_string(counts[1]), path);
          tell();
          if (counts[who] % 3 != 0) continue;
        } catch (const Error& error) {
          if (error.code() != ErrorCode::kConflict) throw;
        }
        counts = counts_of(load_snapshot_file(writer, nullptr, path).note);
      }
    });
  };
  // How long it takes until both have saved, so that kills come before, in and after saves.
  const auto begin = std::chrono::steady_clock::now();
  {
    Child one = start_child(0), other = start_child(1);
    one.wait_for_one();
    other.wait_for_one();
    one.kill();
    other.kill();
  }
  const auto first_saves =
      std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - begin);
  Writer expected = make_writer(model);
  Counts at = counts_of(load_snapshot_file(expected, nullptr, path).note);
  load_snapshot_file(writer, nullptr, path);
  std::mt19937 random(5);
  for (int round = 0; round < kills(); ++round) {
    Child one = start_child(0), other = start_child(1);
    ::usleep(static_cast<useconds_t>(random() % (2 * static_cast<uint64_t>(first_saves.count()) + 1)));
    const uint64_t told_one = one.kill();
    ::usleep(static_cast<useconds_t>(random() % 2000));
    const Counts told = {told_one, other.kill()};
    Writer loaded = make_writer(model);
    SnapshotInfo info;
    REQUIRE_NOTHROW(info = load_snapshot_file(loaded, nullptr, path));
    REQUIRE(files_in(directory.path()) == 1);
    const Counts now = counts_of(info.note);
    for (const size_t who : {size_t{0}, size_t{1}}) {
      REQUIRE(now[who] >= at[who] + told[who]);
      REQUIRE(now[who] <= at[who] + told[who] + 1);
    }
    for (uint64_t n = at[0] + at[1] + 1; n <= now[0] + now[1]; ++n) step(*this, expected, n);
    REQUIRE(saved(loaded, "") == saved(expected, ""));
    at = now;
  }
  MESSAGE(kills() << " kills of each; " << at[0] << " and " << at[1] << " saves");
  CHECK(at[0] > 0);
  CHECK(at[1] > 0);
}

TEST_CASE_FIXTURE(Fixture, "a file that is replaced while it is opened is read as one of the two") {
  const TempDir directory;
  run(writer, first());
  const std::string path = directory / "memory", next = directory / "next";
  const std::array<std::string, 2> kept = {directory / "short", directory / "long"};
  save_snapshot_file(writer, "", kept[0]);
  save_snapshot_file(writer, std::string(1000, 'x'), kept[1]);
  std::filesystem::create_hard_link(kept[0], path);
  std::atomic<bool> enough = false;
  std::thread other([&] {
    for (size_t n = 1; !enough; ++n) {
      std::filesystem::create_hard_link(kept[n % 2], next);
      std::filesystem::rename(next, path);
    }
  });
  std::string failure;
  for (int n = 0; n < 2000 && failure.empty(); ++n) {
    try {
      inspect_snapshot_file(path);
    } catch (const Error& error) {
      failure = error.what();
    }
  }
  enough = true;
  other.join();
  CHECK(failure == "");
}

TEST_CASE_FIXTURE(Fixture,
                  "a save keeps mode, owner and extended attributes; a new file is its owner's alone") {
  const TempDir directory;
  const std::string path = directory / "memory";
  const auto mode = [&] {
    struct stat status;
    REQUIRE(::stat(path.c_str(), &status) == 0);
    return status.st_mode & 07777;
  };
  run(writer, first());
  save_snapshot_file(writer, "old", path);
  CHECK(mode() == 0600);
  ::chmod(path.c_str(), 0640);
#ifdef __linux__
  const bool attributes = ::setxattr(path.c_str(), "user.note", "mine", 4, 0) == 0;
#endif
  save_snapshot_file(writer, "new", path);
  CHECK(mode() == 0640);
  CHECK(inspect_snapshot_file(path).note == "new");
#ifdef __linux__
  char value[8];
  if (attributes) CHECK(::getxattr(path.c_str(), "user.note", value, sizeof value) == 4);
#endif
}

TEST_CASE_FIXTURE(Fixture, "names may be as long as names can be, and paths relative") {
  const TempDir directory;
  run(writer, first());
  for (const size_t length : {size_t{249}, size_t{254}, size_t{255}}) {
    const std::string path = directory / std::string(length, 'm');
    save_snapshot_file(writer, "long", path);
    CHECK(load_snapshot_file(writer, nullptr, path).note == "long");
  }
  const auto here = std::filesystem::current_path();
  std::filesystem::current_path(directory.path());
  save_snapshot_file(writer, "here", "memory");
  std::filesystem::current_path(here);
  CHECK(inspect_snapshot_file(directory / "memory").note == "here");
  CHECK(files_in(directory.path()) == 4);
}

TEST_CASE_FIXTURE(Fixture, "what cannot be replaced is no memory: a folder, a device, a circle of links") {
  const TempDir directory;
  std::filesystem::create_symlink("b", directory / "a");
  std::filesystem::create_symlink("a", directory / "b");
  for (const std::string& path : {directory.path(), std::string("/dev/null"), directory / "a"})
    message_of([&] { save_snapshot_file(writer, "", path); }, ErrorCode::kIo);
  CHECK(std::filesystem::is_character_file("/dev/null"));
  CHECK(files_in(directory.path()) == 2);
}

TEST_CASE_FIXTURE(Fixture, "a deleted memory leaves nothing of it: not behind links, not of a killed save") {
  const TempDir directory, links;
  const std::string path = directory / "memory";
  CHECK_FALSE(delete_snapshot_file(path));
  run(writer, first());
  save_snapshot_file(writer, "", path);
  std::filesystem::create_symlink(path, links / "link");
  Child child([&](const auto& tell) {  // killed when its new file is there, and not yet in its place
    ::signal(SIGXFSZ, SIG_DFL);
    const rlimit limit{1000, 1000};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    tell();
    save_snapshot_file(writer, "", path);
  });
  child.wait_for_one();
  ::usleep(300'000);
  child.kill();
  CHECK(files_in(directory.path()) == 2);
  CHECK(delete_snapshot_file(links / "link"));
  CHECK(files_in(directory.path()) == 0);
  CHECK(std::filesystem::is_symlink(links / "link"));
  CHECK_FALSE(delete_snapshot_file(links / "link"));
}

TEST_CASE_FIXTURE(Fixture,
                  "a save waits for another one, and a file of somebody else's in its way is not used") {
  const TempDir directory;
  const std::string path = directory / "memory";
  run(writer, first());
  save_snapshot_file(writer, "old", path);
  std::string beside;  // the name that a save uses
  {
    Child child([&](const auto& tell) {
      ::signal(SIGXFSZ, SIG_DFL);
      const rlimit limit{1000, 1000};
      ::setrlimit(RLIMIT_FSIZE, &limit);
      tell();
      save_snapshot_file(writer, "", path);
    });
    child.wait_for_one();
    ::usleep(300'000);
    child.kill();
    for (const auto& entry : std::filesystem::directory_iterator(directory.path()))
      if (entry.path() != path) beside = entry.path();
  }
  REQUIRE_FALSE(beside.empty());
  {
    const int held = ::open(beside.c_str(), O_RDWR);
    REQUIRE(::flock(held, LOCK_EX) == 0);
    const auto begin = std::chrono::steady_clock::now();
    std::thread later([&] {
      ::usleep(200'000);
      ::close(held);
    });
    save_snapshot_file(writer, "new", path);
    later.join();
    CHECK(std::chrono::steady_clock::now() - begin >= std::chrono::milliseconds(150));
  }
  const std::string other = directory.write("other", "not to be touched");
  std::filesystem::create_symlink(other, beside);
  save_snapshot_file(writer, "newer", path);
  CHECK(text_of(other) == "not to be touched");
  std::filesystem::remove(beside);
  std::filesystem::create_hard_link(other, beside);
  save_snapshot_file(writer, "newest", path);
  CHECK(text_of(other) == "not to be touched");
  CHECK(inspect_snapshot_file(path).note == "newest");
}

TEST_CASE_FIXTURE(Fixture, "a file that cannot be looked at is not one that is not there") {
  const TempDir directory;
  std::filesystem::create_symlink("circle", directory / "circle");
  message_of([&] { load_snapshot_file(writer, nullptr, directory / "circle"); }, ErrorCode::kIo);
  message_of([&] { Model::load(directory / "circle"); }, ErrorCode::kIo);
  std::filesystem::create_symlink("model.onnx", directory / "model.onnx");
  message_of([&] { Model::load(directory.path()); }, ErrorCode::kIo);
}

TEST_CASE_FIXTURE(Fixture, "a known file that cannot be read any more is no conflict, but an I/O error") {
  const TempDir directory;
  const std::string path = directory / "memory";
  run(writer, first());
  save_snapshot_file(writer, "", path);
  ::chmod(directory.path().c_str(), 0777);
  ::chmod(path.c_str(), 0);
  const pid_t child = ::fork();
  if (child == 0) {  // the superuser may read it all the same, and has to become nobody
    if (::geteuid() == 0 && ::setuid(65534) != 0) ::_exit(0);
    try {
      save_snapshot_file(writer, "", path);
    } catch (const Error& error) {
      ::_exit(error.code() == ErrorCode::kIo ? 0 : 2);
    }
    ::_exit(1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  CHECK(status == 0);
}
