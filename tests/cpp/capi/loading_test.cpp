// Models through the C API: from files, memory and descriptors, with what is chosen at load, and damaged
// ones.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "../temp_dir.h"
#include "app.h"

using namespace allmem::test;

TEST_CASE(
    "window, sinks, chunk and memory are chosen at load, and a program that knows of none gets the file's") {
  const auto info_with = [](const allmem_model_options& options) {
    allmem_model* raw = nullptr;
    REQUIRE(allmem_model_load(kBundled.c_str(), &options, &raw) == ALLMEM_OK);
    const ModelPtr model(raw);
    allmem_model_info info;
    info.struct_size = sizeof info;
    REQUIRE(allmem_model_get_info(raw, &info) == ALLMEM_OK);
    return info;
  };
  allmem_model_options options;
  allmem_model_options_init(&options);
  const allmem_model_info own = info_with(options);
  CHECK(own.window == 64);
  CHECK(own.sinks == 4);
  CHECK(own.chunk == 64);
  options.window = 32;
  options.sinks = 0;
  options.chunk = 16;
  const allmem_model_info small = info_with(options);
  CHECK(small.window == 32);
  CHECK(small.sinks == 0);
  CHECK(small.chunk == 16);
  CHECK(small.state_bytes < own.state_bytes);
  CHECK(small.fingerprint == own.fingerprint);
  options.struct_size = offsetof(allmem_model_options, window);  // what follows is then not the struct's
  CHECK(info_with(options).state_bytes == own.state_bytes);
  allmem_model_options_init(&options);
  options.memory = ALLMEM_MEMORY_FROZEN;
  const allmem_model_info frozen = info_with(options);
  options.memory = ALLMEM_MEMORY_OFF;
  const allmem_model_info off = info_with(options);
  CHECK(off.chunk == 0);
  CHECK(off.state_bytes < frozen.state_bytes);
  CHECK(frozen.state_bytes < own.state_bytes);
}

TEST_CASE("a session of a frozen memory cannot be made to write it") {
  allmem_model_options options;
  allmem_model_options_init(&options);
  options.memory = ALLMEM_MEMORY_FROZEN;
  allmem_model* raw = nullptr;
  REQUIRE(allmem_model_load(kBundled.c_str(), &options, &raw) == ALLMEM_OK);
  const ModelPtr model(raw);
  const SessionPtr session = create(model);
  CHECK(info_of(session).frozen == 1);
  CHECK(allmem_session_freeze(session.get(), 1) == ALLMEM_OK);
  CHECK(allmem_session_freeze(session.get(), 0) == ALLMEM_INVALID_ARGUMENT);
  CHECK(std::string(allmem_last_error()).find("frozen") != std::string::npos);
}

TEST_CASE("a model loads from memory and from open files as it does from its directory") {
  const ModelPtr model = load();
  const SessionPtr session = create(model);
  const std::string expected = say(session, "Good morning!");

  const char* names[] = {"model.onnx", "model.onnx.data", "tokenizer.json", "generation_config.json"};
  const TempDir directory;
  std::vector<std::vector<char>> contents;
  std::vector<allmem_file> in_memory, in_one_file;
  std::string package = "some other asset";  // so that no piece begins at a page
  for (const char* name : names) {
    std::ifstream file(kBundled + "/" + name, std::ios::binary);
    contents.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  for (size_t i = 0; i < std::size(names); ++i) {
    in_memory.push_back({names[i], contents[i].data(), contents[i].size(), -1, 0});
    in_one_file.push_back({names[i], nullptr, contents[i].size(), -1, package.size()});
    package.append(contents[i].begin(), contents[i].end());
  }
  allmem_model* loaded = nullptr;
  REQUIRE(allmem_model_load_memory(in_memory.data(), in_memory.size(), nullptr, &loaded) == ALLMEM_OK);
  const ModelPtr from_memory(loaded);
  CHECK(say(create(from_memory), "Good morning!") == expected);

  CHECK(allmem_model_load_memory(in_memory.data() + 1, 3, nullptr, &loaded) == ALLMEM_NOT_FOUND);
  CHECK(allmem_model_load_memory(in_memory.data(), 1, nullptr, &loaded) == ALLMEM_NOT_FOUND);

  const int fd = ::open(directory.write("package", package).c_str(), O_RDONLY);
  for (allmem_file& file : in_one_file) file.fd = fd;
  const int32_t status = allmem_model_load_fds(in_one_file.data(), in_one_file.size(), nullptr, &loaded);
  if (ALLMEM_ON_WINDOWS) {
    CHECK(status == ALLMEM_UNSUPPORTED);
    ::close(fd);
    return;
  }
  REQUIRE(status == ALLMEM_OK);
  const ModelPtr from_file(loaded);
  in_one_file.back().size = package.size();
  CHECK(allmem_model_load_fds(in_one_file.data(), in_one_file.size(), nullptr, &loaded) ==
        ALLMEM_INVALID_ARGUMENT);
  ::close(fd);
  CHECK(say(create(from_file), "Good morning!") == expected);
}

TEST_CASE("damaged weights poison the session, and the status says that the model is bad") {
  std::vector<std::string> contents;
  std::vector<allmem_file> files;
  const char* names[] = {"model.onnx", "model.onnx.data", "tokenizer.json"};
  for (const char* name : names) {
    std::ifstream file(kBundled + "/" + name, std::ios::binary);
    contents.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  contents[1].replace(986000, 64, 64, '\xFF');  // scales that are NaN
  for (size_t i = 0; i < 3; ++i) files.push_back({names[i], contents[i].data(), contents[i].size(), -1, 0});
  allmem_model* raw = nullptr;
  REQUIRE(allmem_model_load_memory(files.data(), 3, nullptr, &raw) == ALLMEM_OK);
  const ModelPtr model(raw);
  const SessionPtr session = create(model);
  const allmem_message message = {"user", "Hello!"};
  CHECK(allmem_session_chat(session.get(), &message, 1, nullptr, nullptr, nullptr, nullptr) ==
        ALLMEM_BAD_MODEL);
  CHECK(std::string(allmem_last_error()).find("damaged") != std::string::npos);
  const int32_t id = 5;
  CHECK(allmem_session_prefill(session.get(), &id, 1, nullptr) == ALLMEM_POISONED);
  REQUIRE(allmem_session_reset(session.get()) == ALLMEM_OK);
  CHECK(position(session) == 0);
}

TEST_CASE("a damaged file of a model is refused by name") {
  const TempDir directory;
  const std::string folder = directory / "model";
  std::filesystem::copy(kBundled, folder);
  const auto load_with = [&](int32_t check) {
    allmem_model_options options;
    allmem_model_options_init(&options);
    options.check = check;
    allmem_model* model = nullptr;
    const int32_t status = allmem_model_load(folder.c_str(), &options, &model);
    allmem_model_free(model);
    return status;
  };
  const auto damage = [&](const std::string& name) {
    std::fstream file(folder + "/" + name, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(0, std::ios::end);
    const auto middle = file.tellg() / 2;
    file.seekg(middle);
    const int byte = file.get();
    file.seekp(middle);
    file.put(static_cast<char>(byte ^ 1));
  };
  for (const int32_t check : {ALLMEM_CHECK_NONE, ALLMEM_CHECK_SMALL, ALLMEM_CHECK_ALL})
    CHECK(load_with(check) == ALLMEM_OK);
  for (const auto& entry : std::filesystem::directory_iterator(kBundled)) {
    const std::string name = entry.path().filename().string();
    if (name == "SHA256SUMS") continue;
    CAPTURE(name);
    damage(name);
    CHECK(load_with(ALLMEM_CHECK_ALL) == ALLMEM_BAD_MODEL);
    CHECK(std::string(allmem_last_error()).find(name + " is not what SHA256SUMS says") != std::string::npos);
    if (name == "model.onnx.data") {
      CHECK(load_with(ALLMEM_CHECK_SMALL) == ALLMEM_BAD_MODEL);
      CHECK(load_with(ALLMEM_CHECK_NONE) == ALLMEM_OK);
    }
    damage(name);
  }
  std::filesystem::remove(folder + "/config.json");
  CHECK(load_with(ALLMEM_CHECK_ALL) == ALLMEM_BAD_MODEL);
  CHECK(load_with(ALLMEM_CHECK_SMALL) == ALLMEM_OK);
  std::ofstream(folder + "/SHA256SUMS") << "no list\n";
  CHECK(load_with(ALLMEM_CHECK_SMALL) == ALLMEM_BAD_MODEL);
  std::filesystem::remove(folder + "/SHA256SUMS");
  CHECK(load_with(ALLMEM_CHECK_ALL) == ALLMEM_NOT_FOUND);
  CHECK(load_with(ALLMEM_CHECK_SMALL) == ALLMEM_OK);
}

#if !ALLMEM_ON_WINDOWS
TEST_CASE("a tokenizer that cannot be looked at is not taken for none") {
  const TempDir directory;
  const std::string folder = directory / "model";
  std::filesystem::copy(kBundled, folder);
  std::filesystem::remove(folder + "/tokenizer.json");
  std::filesystem::create_symlink("tokenizer.json", folder + "/tokenizer.json");
  allmem_model* model = nullptr;
  CHECK(allmem_model_load(folder.c_str(), nullptr, &model) == ALLMEM_IO);
}
#endif

TEST_CASE("the log callback tells of loading, saving and nothing else") {
  std::vector<std::string> lines;
  allmem_model_options options;
  allmem_model_options_init(&options);
  options.log = [](const char* line, void* to) {
    static_cast<std::vector<std::string>*>(to)->push_back(line);
  };
  options.user_data = &lines;
  allmem_model* raw = nullptr;
  REQUIRE(allmem_model_load(kBundled.c_str(), &options, &raw) == ALLMEM_OK);
  const ModelPtr model(raw);
  REQUIRE(lines.size() == 1);
  CHECK(lines[0].find(allmem_isa()) != std::string::npos);
  const SessionPtr session = create(model);
  say(session, "Hello!");
  CHECK(lines.size() == 1);
  const TempDir directory;
  REQUIRE(allmem_session_save_file(session.get(), nullptr, 0, (directory / "m").c_str()) == ALLMEM_OK);
  CHECK(lines.size() == 2);
  REQUIRE(allmem_session_load_file(session.get(), (directory / "m").c_str()) == ALLMEM_OK);
  CHECK(lines.size() == 3);
}
