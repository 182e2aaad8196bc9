// What a snapshot's file promises: it holds the old state or the new one, and nobody's save is lost.
#include <new>

#include "platform/file_path.h"
#include "snapshot_fixture.h"

using namespace allmem;
using namespace allmem::test;
using namespace allmem::test::snapshots;

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

TEST_CASE_FIXTURE(Fixture, "a file that could not be loaded is not overwritten by the session that tried") {
  const TempDir directory;
  const std::string path = directory.write("memory", "a conversation of some later format");
  run(writer, first());
  message_of([&] { load_snapshot_file(writer, nullptr, path); }, ErrorCode::kBadSnapshot);
  std::unique_ptr<Writer> twin = writer.clone();
  for (Writer* tried : {&writer, twin.get()}) {
    const std::string sentence =
        message_of([&] { save_snapshot_file(*tried, "", path); }, ErrorCode::kConflict);
    CHECK(sentence.find("could not be loaded") != std::string::npos);
  }
  CHECK(std::filesystem::file_size(path) == 35);
  save_snapshot_file(writer, "", directory / "another");
  std::filesystem::rename(path, directory / "aside");
  save_snapshot_file(writer, "mine", path);
  save_snapshot_file(writer, "mine again", path);

  std::filesystem::rename(directory / "another", path);  // of somebody else, who is loaded at the second try
  const auto refuse = [](const auto&) { throw std::bad_alloc(); };
  CHECK_THROWS_AS(load_snapshot_file(*twin, nullptr, path, refuse), std::bad_alloc);
  message_of([&] { save_snapshot_file(*twin, "", path); }, ErrorCode::kConflict);
  load_snapshot_file(*twin, nullptr, path);
  CHECK_NOTHROW(save_snapshot_file(*twin, "", path));

  CHECK_THROWS_AS(load_snapshot_file(*twin, nullptr, path, refuse), std::bad_alloc);
  CHECK_NOTHROW(save_snapshot_file(*twin, "", path));  // what it holds is known
  message_of([&] { load_snapshot_file(writer, nullptr, directory / "none"); }, ErrorCode::kNotFound);
  CHECK_NOTHROW(save_snapshot_file(writer, "", directory / "none"));
}
