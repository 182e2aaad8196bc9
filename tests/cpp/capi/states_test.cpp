// What a session holds, through the C API: saved, loaded, undone, wiped.
#include <doctest/doctest.h>

#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "../temp_dir.h"
#include "app.h"

using namespace allmem::test;

TEST_CASE("nothing leaks through reset: the session is a new one, to the last byte of its snapshot") {
  const ModelPtr model = load();
  const SessionPtr session = create(model), fresh = create(model);
  const std::vector<char> untouched = save(fresh);
  say(session, "Remember that my safe code is 998877.");
  REQUIRE(save(session) != untouched);
  REQUIRE(allmem_session_reset(session.get()) == ALLMEM_OK);
  CHECK(save(session) == untouched);
  CHECK(say(session, "What is my safe code?") == say(fresh, "What is my safe code?"));
  CHECK(save(session) == save(fresh));
  REQUIRE(allmem_session_freeze(session.get(), 1) == ALLMEM_OK);
  REQUIRE(allmem_session_reset(session.get()) == ALLMEM_OK);
  allmem_session_info info;
  info.struct_size = sizeof info;
  REQUIRE(allmem_session_get_info(session.get(), &info) == ALLMEM_OK);
  CHECK(info.frozen == 1);  // a setting, and no memory
}

TEST_CASE("a wiped session is as new, and its snapshot holds nothing of what was read") {
  const ModelPtr model = load();
  const SessionPtr session = create(model), fresh = create(model);
  const std::vector<char> untouched = save(session);
  say(session, "Remember that my safe code is 998877.");
  CHECK(save(session) != untouched);
  REQUIRE(allmem_session_mark(session.get(), 0) == ALLMEM_OK);
  REQUIRE(allmem_session_wipe(session.get()) == ALLMEM_OK);
  CHECK(save(session) == untouched);
  CHECK(info_of(session).marks == 0);
  CHECK(say(session, "Hello!") == say(fresh, "Hello!"));
}

TEST_CASE("undo goes back turn by turn") {
  const ModelPtr model = load();
  const SessionPtr session = create(model);
  const uint64_t room = 3 * info_of(session).state_bytes;  // for two marks and not for three
  std::vector<std::vector<char>> before;
  for (const char* text : {"Hi, I'm Tobias.", "My door code is 4711.", "I like tea."}) {
    before.push_back(save(session));
    REQUIRE(allmem_session_mark(session.get(), room) == ALLMEM_OK);
    say(session, text);
  }
  CHECK(info_of(session).marks == 2);
  CHECK(info_of(session).mark_bytes <= room);
  for (const size_t turn : {2, 1}) {
    REQUIRE(allmem_session_undo(session.get()) == ALLMEM_OK);
    CHECK(save(session) == before[turn]);
  }
  CHECK(allmem_session_undo(session.get()) == ALLMEM_INVALID_ARGUMENT);
  CHECK(say(session, "What is my name?").find("Tobias") != std::string::npos);
}

TEST_CASE("a snapshot says what it is, and a damaged one changes nothing") {
  const ModelPtr model = load();
  const SessionPtr session = create(model);
  say(session, "Hello!");
  std::vector<char> bytes = save(session);
  allmem_snapshot_info info;
  info.struct_size = sizeof info;
  char note[8];
  size_t count = 0;
  REQUIRE(allmem_snapshot_inspect(bytes.data(), bytes.size(), &info, note, sizeof note, &count) == ALLMEM_OK);
  CHECK(std::string(note, count) == "note");
  CHECK(info.position == position(session));
  allmem_model_info about;
  about.struct_size = sizeof about;
  REQUIRE(allmem_model_get_info(model.get(), &about) == ALLMEM_OK);
  CHECK(info.fingerprint == about.fingerprint);
  CHECK(about.window == 64);
  CHECK(about.has_chat == 1);
  CHECK(std::string(about.quantization) == "int8");

  bytes[bytes.size() / 2] ^= 1;
  CHECK(allmem_session_load(session.get(), bytes.data(), bytes.size()) == ALLMEM_BAD_SNAPSHOT);
  CHECK(allmem_snapshot_inspect(bytes.data(), bytes.size(), &info, nullptr, 0, nullptr) ==
        ALLMEM_BAD_SNAPSHOT);
  bytes[bytes.size() / 2] ^= 1;
  CHECK(save(session) == bytes);
  CHECK(allmem_session_load(session.get(), bytes.data(), bytes.size()) == ALLMEM_OK);

  const TempDir directory;
  const std::string path = directory.write("memory", {bytes.data(), bytes.size()});
  info.position = 0;
  REQUIRE(allmem_snapshot_inspect_file(path.c_str(), &info, note, sizeof note, &count) == ALLMEM_OK);
  CHECK(std::string(note, count) == "note");
  CHECK(info.position == position(session));
  for (const size_t end : {size_t{0}, size_t{71}, size_t{100}, bytes.size() - 1}) {
    directory.write("memory", {bytes.data(), end});
    CHECK(allmem_snapshot_inspect_file(path.c_str(), &info, nullptr, 0, nullptr) == ALLMEM_BAD_SNAPSHOT);
    CHECK(allmem_session_load_file(session.get(), path.c_str()) == ALLMEM_BAD_SNAPSHOT);
  }
  for (const size_t place : {size_t{70}, size_t{73}, bytes.size() / 2, bytes.size() - 1}) {
    std::string damaged(bytes.data(), bytes.size());
    damaged[place] ^= 1;
    directory.write("memory", damaged);
    CHECK(allmem_snapshot_inspect_file(path.c_str(), &info, nullptr, 0, nullptr) == ALLMEM_BAD_SNAPSHOT);
  }
}

TEST_CASE("a memory goes through callbacks, encrypted, and without a copy") {
  const ModelPtr model = load();
  const SessionPtr session = create(model);
  say(session, "Hi, I'm Tobias.");
  std::string secret;
  const auto write = [](const void* bytes, size_t size, void* to) -> int32_t {
    const auto* letters = static_cast<const char*>(bytes);
    for (size_t i = 0; i < size; ++i) static_cast<std::string*>(to)->push_back(letters[i] ^ 0x55);
    return size > size_t{1} << 20;
  };
  const auto read = [](void* bytes, size_t size, uint64_t offset, void* from) -> int32_t {
    const std::string& all = *static_cast<std::string*>(from);
    if (offset > all.size() || size > all.size() - offset) return 1;
    for (size_t i = 0; i < size; ++i)
      static_cast<char*>(bytes)[i] = static_cast<char>(all[static_cast<size_t>(offset) + i] ^ 0x55);
    return 0;
  };
  REQUIRE(allmem_session_save_to(session.get(), "note", 4, write, &secret) == ALLMEM_OK);
  CHECK(secret.size() == save(session).size());
  const SessionPtr later = create(model);
  REQUIRE(allmem_session_load_from(later.get(), secret.size(), read, &secret) == ALLMEM_OK);
  CHECK(save(later) == save(session));
  CHECK(say(later, "What is my name?").find("Tobias") != std::string::npos);

  const std::vector<char> before = save(later);
  const auto give_up = [](const void*, size_t, void*) -> int32_t { return 1; };
  CHECK(allmem_session_save_to(later.get(), nullptr, 0, give_up, nullptr) == ALLMEM_IO);
  CHECK(allmem_session_load_from(later.get(), secret.size() + 1, read, &secret) == ALLMEM_BAD_SNAPSHOT);
  const uint64_t whole = secret.size();
  secret.resize(100);
  CHECK(allmem_session_load_from(later.get(), whole, read, &secret) == ALLMEM_IO);
  CHECK(save(later) == before);
}

TEST_CASE("a memory that somebody else has changed is not overwritten, and a deleted one is gone") {
  const TempDir directory;
  const std::string path = directory / "memory";
  const ModelPtr model = load();
  const SessionPtr one = create(model), other = create(model);
  say(one, "Hi, I'm Tobias.");
  REQUIRE(allmem_session_save_file(one.get(), nullptr, 0, path.c_str()) == ALLMEM_OK);
  REQUIRE(allmem_session_load_file(other.get(), path.c_str()) == ALLMEM_OK);
  say(other, "My door code is 4711.");
  REQUIRE(allmem_session_save_file(other.get(), nullptr, 0, path.c_str()) == ALLMEM_OK);
  CHECK(allmem_session_save_file(one.get(), nullptr, 0, path.c_str()) == ALLMEM_CONFLICT);
  CHECK(std::string(allmem_last_error()).find("somebody else has changed") != std::string::npos);
  REQUIRE(allmem_session_load_file(one.get(), path.c_str()) == ALLMEM_OK);
  CHECK(save(one) == save(other));
  CHECK(allmem_snapshot_delete_file(path.c_str()) == ALLMEM_OK);
  CHECK_FALSE(std::filesystem::exists(path));
  CHECK(allmem_snapshot_delete_file(path.c_str()) == ALLMEM_NOT_FOUND);
}
