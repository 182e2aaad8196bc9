// The C API as an app uses it: the bundled model answers, remembers, is cancelled, saved and loaded.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "../temp_dir.h"
#include "allmem/allmem.h"

using allmem::test::TempDir;

namespace {

const std::string kBundled = ALLMEM_BUNDLED_MODEL;

struct FreeModel {
  void operator()(allmem_model* model) const { allmem_model_free(model); }
};
struct FreeSession {
  void operator()(allmem_session* session) const { allmem_session_free(session); }
};
struct FreeDecoder {
  void operator()(allmem_decoder* decoder) const { allmem_decoder_free(decoder); }
};
using ModelPtr = std::unique_ptr<allmem_model, FreeModel>;
using SessionPtr = std::unique_ptr<allmem_session, FreeSession>;

ModelPtr load() {
  allmem_model* model = nullptr;
  REQUIRE(allmem_model_load(kBundled.c_str(), nullptr, &model) == ALLMEM_OK);
  return ModelPtr(model);
}

SessionPtr create(const ModelPtr& model, int32_t threads = 1) {
  allmem_session_options options;
  allmem_session_options_init(&options);
  options.threads = threads;
  allmem_session* session = nullptr;
  REQUIRE(allmem_session_create(model.get(), &options, &session) == ALLMEM_OK);
  return SessionPtr(session);
}

allmem_sampling greedy() {
  allmem_sampling sampling;
  allmem_sampling_init(&sampling);
  sampling.temperature = 0;
  sampling.max_tokens = 48;
  return sampling;
}

int32_t append(const char* text, size_t size, void* user_data) {
  CHECK(std::strlen(text) == size);
  static_cast<std::string*>(user_data)->append(text, size);
  return 0;
}

std::string say(const SessionPtr& session, const char* text) {
  const allmem_message message = {"user", text};
  const allmem_sampling sampling = greedy();
  std::string answer;
  REQUIRE(allmem_session_chat(session.get(), &message, 1, &sampling, append, &answer, nullptr) == ALLMEM_OK);
  return answer;
}

std::vector<int32_t> tokenize(const ModelPtr& model, const std::string& text) {
  size_t count = 0;
  allmem_tokenize(model.get(), text.data(), text.size(), 0, nullptr, 0, &count);
  std::vector<int32_t> ids(count);
  REQUIRE(allmem_tokenize(model.get(), text.data(), text.size(), 0, ids.data(), ids.size(), &count) ==
          ALLMEM_OK);
  return ids;
}

std::vector<char> save(const SessionPtr& session) {
  size_t count = 0;
  CHECK(allmem_session_save(session.get(), "note", 4, nullptr, 0, &count) == ALLMEM_BUFFER_TOO_SMALL);
  std::vector<char> bytes(count);
  REQUIRE(allmem_session_save(session.get(), "note", 4, bytes.data(), bytes.size(), &count) == ALLMEM_OK);
  return bytes;
}

allmem_session_info info_of(const SessionPtr& session) {
  allmem_session_info info;
  info.struct_size = sizeof info;
  REQUIRE(allmem_session_get_info(session.get(), &info) == ALLMEM_OK);
  return info;
}

uint64_t position(const SessionPtr& session) { return info_of(session).position; }

allmem_layer_memory inspect(const SessionPtr& session, int32_t layer) {
  allmem_layer_memory memory;
  memory.struct_size = sizeof memory;
  REQUIRE(allmem_session_inspect(session.get(), layer, &memory) == ALLMEM_OK);
  return memory;
}

std::vector<int32_t> many_tokens(const ModelPtr& model, size_t count) {
  std::string text;
  while (text.size() < 8 * count) text += "The weather was fine and we talked about the garden. ";
  std::vector<int32_t> ids = tokenize(model, text);
  REQUIRE(ids.size() >= count);
  ids.resize(count);
  return ids;
}

}  // namespace

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

TEST_CASE("the library says what it is, and what went wrong in each thread") {
  CHECK(allmem_abi_version() == ALLMEM_ABI_VERSION);
  CHECK(std::string(allmem_version()).find('.') != std::string::npos);
  CHECK(std::strlen(allmem_isa()) > 0);
  CHECK(std::string(allmem_status_name(ALLMEM_OK)) == "ALLMEM_OK");
  CHECK(std::string(allmem_status_name(ALLMEM_INTERNAL)) == "ALLMEM_INTERNAL");
  CHECK(std::string(allmem_status_name(ALLMEM_CONFLICT)) == "ALLMEM_CONFLICT");
  allmem_model* model = nullptr;
  std::thread([&] {
    CHECK(*allmem_last_error() == '\0');  // nothing failed in this thread
    CHECK(allmem_model_load("/no/such/model", nullptr, &model) == ALLMEM_NOT_FOUND);
    CHECK(std::string(allmem_last_error()).find("/no/such/model") != std::string::npos);
  }).join();
  CHECK(std::string(allmem_last_error()).find("/no/such/model") == std::string::npos);
}

TEST_CASE("text becomes ids and comes back, characters of several bytes too") {
  const ModelPtr model = load();
  const std::string text = "Hello, Zoë! 你好 🙂";
  std::vector<int32_t> ids = tokenize(model, text);
  size_t count = 0;
  std::string back(text.size() + 8, '?');
  REQUIRE(allmem_detokenize(model.get(), ids.data(), ids.size(), back.data(), back.size(), &count) ==
          ALLMEM_OK);
  CHECK(back.substr(0, count) == text);
  CHECK(allmem_detokenize(model.get(), ids.data(), ids.size(), nullptr, 0, &count) ==
        ALLMEM_BUFFER_TOO_SMALL);
  CHECK(count == text.size());

  std::string bytes;
  for (const int32_t id : ids) {
    char token[64];
    int32_t special = -1;
    REQUIRE(allmem_token_bytes(model.get(), id, token, sizeof token, &count, &special) == ALLMEM_OK);
    CHECK(special == 0);
    bytes.append(token, count);
  }
  CHECK(bytes == text);
  int32_t id = -1, special = -1;
  REQUIRE(allmem_tokenize(model.get(), "<|im_end|>", ALLMEM_NUL_TERMINATED, 1, &id, 1, &count) == ALLMEM_OK);
  REQUIRE(allmem_token_bytes(model.get(), id, back.data(), back.size(), &count, &special) == ALLMEM_OK);
  CHECK(back.substr(0, count) == "<|im_end|>");
  CHECK(special == 1);
}

TEST_CASE("sampling at temperature 0 takes the largest of the logits") {
  const ModelPtr model = load();
  const SessionPtr session = create(model);
  const allmem_sampling sampling = greedy();
  REQUIRE(allmem_session_set_sampling(session.get(), &sampling) == ALLMEM_OK);
  const std::vector<int32_t> ids = many_tokens(model, 50);
  REQUIRE(allmem_session_prefill(session.get(), ids.data(), ids.size(), nullptr) == ALLMEM_OK);
  size_t count = 0;
  CHECK(allmem_session_logits(session.get(), nullptr, 0, &count) == ALLMEM_BUFFER_TOO_SMALL);
  std::vector<float> logits(count);
  REQUIRE(allmem_session_logits(session.get(), logits.data(), logits.size(), &count) == ALLMEM_OK);
  int32_t id = -1;
  REQUIRE(allmem_session_sample(session.get(), &id) == ALLMEM_OK);
  CHECK(id == std::ranges::max_element(logits) - logits.begin());
}

TEST_CASE("a conversation remembers, in the session, in a clone and after saving and loading") {
  const TempDir directory;
  const std::string path = directory / "memory";
  const ModelPtr model = load();
  {
    const SessionPtr session = create(model);
    say(session, "Hi, I'm Tobias.");
    REQUIRE(allmem_session_save_file(session.get(), nullptr, 0, path.c_str()) == ALLMEM_OK);
    CHECK(say(session, "What is my name?").find("Tobias") != std::string::npos);
  }
  const SessionPtr later = create(model);
  REQUIRE(allmem_session_load_file(later.get(), path.c_str()) == ALLMEM_OK);
  allmem_session* copy = nullptr;
  REQUIRE(allmem_session_clone(later.get(), &copy) == ALLMEM_OK);
  const SessionPtr clone(copy);
  const std::string answer = say(later, "What is my name?");
  CHECK(answer.find("Tobias") != std::string::npos);
  CHECK(say(clone, "What is my name?") == answer);
  REQUIRE(allmem_session_reset(later.get()) == ALLMEM_OK);
  CHECK(position(later) == 0);
  CHECK(say(later, "What is my name?").find("Tobias") == std::string::npos);
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

TEST_CASE("cancel ends a long prefill within one block, and the session goes on") {
  const ModelPtr model = load();
  const SessionPtr session = create(model);
  const std::vector<int32_t> ids = many_tokens(model, 4096);
  std::vector<int32_t> long_prompt;
  for (int i = 0; i < 100; ++i) long_prompt.insert(long_prompt.end(), ids.begin(), ids.end());
  size_t read = 0;
  int32_t status = ALLMEM_OK;
  std::atomic<bool> done = false;
  const auto cancel_until_done = [&] {  // a cancel that comes before the call has begun is without effect
    while (!done) {
      CHECK(allmem_session_cancel(session.get()) == ALLMEM_OK);
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  };
  std::thread reader([&] {
    status = allmem_session_prefill(session.get(), long_prompt.data(), long_prompt.size(), &read);
    done = true;
  });
  cancel_until_done();
  reader.join();
  CHECK(status == ALLMEM_CANCELLED);
  CHECK(read < long_prompt.size());
  CHECK(read % 128 == 0);
  CHECK(position(session) == read);
  CHECK(allmem_session_cancel(session.get()) == ALLMEM_OK);  // nothing runs: without effect
  CHECK(allmem_session_prefill(session.get(), ids.data(), 10, &read) == ALLMEM_OK);
  CHECK(read == 10);

  allmem_generation generation;
  generation.struct_size = sizeof generation;
  done = false;
  std::thread generator([&] {
    status = allmem_session_generate(session.get(), long_prompt.data(), long_prompt.size(), nullptr, nullptr,
                                     nullptr, &generation);
    done = true;
  });
  cancel_until_done();
  generator.join();
  CHECK(status == ALLMEM_CANCELLED);
  CHECK(generation.finish == ALLMEM_FINISH_CANCELLED);
  CHECK(generation.generated_tokens == 0);
}

TEST_CASE("a callback is called with no text between the blocks of a prompt, and ends the prefill there") {
  const ModelPtr model = load();
  const SessionPtr session = create(model);
  const std::vector<int32_t> ids = many_tokens(model, 1000);
  struct Calls {
    int32_t empty = 0, with_text = 0, stop_after = 1000;
  } calls;
  const auto count = [](const char*, size_t size, void* user_data) {
    auto& seen = *static_cast<Calls*>(user_data);
    ++(size == 0 ? seen.empty : seen.with_text);
    return int32_t{seen.empty + seen.with_text >= seen.stop_after};
  };
  allmem_sampling sampling = greedy();
  allmem_generation generation;
  generation.struct_size = sizeof generation;
  sampling.max_tokens = 0;
  REQUIRE(allmem_session_generate(session.get(), ids.data(), ids.size(), &sampling, count, &calls,
                                  &generation) == ALLMEM_OK);
  CHECK(calls.empty == 7);  // between 8 blocks of at most 128 tokens
  CHECK(calls.with_text == 0);
  REQUIRE(allmem_session_reset(session.get()) == ALLMEM_OK);
  calls = {.stop_after = 3};
  CHECK(allmem_session_generate(session.get(), ids.data(), ids.size(), &sampling, count, &calls,
                                &generation) == ALLMEM_CANCELLED);
  CHECK(generation.prompt_tokens == 3 * 128);
  CHECK(generation.prompt_left == 1000 - 3 * 128);
  CHECK(position(session) == 3 * 128);
}

TEST_CASE("the figures are up to date whenever the callback is called") {
  const ModelPtr model = load();
  const SessionPtr session = create(model);
  const std::vector<int32_t> ids = many_tokens(model, 300);
  struct Watch {
    allmem_generation generation = {};
    std::vector<uint64_t> read, left, generated;
  } watch;
  watch.generation.struct_size = sizeof watch.generation;
  const auto look = [](const char*, size_t, void* user_data) {
    auto& seen = *static_cast<Watch*>(user_data);
    seen.read.push_back(seen.generation.prompt_tokens);
    seen.left.push_back(static_cast<uint64_t>(seen.generation.prompt_left));
    seen.generated.push_back(seen.generation.generated_tokens);
    return int32_t{seen.read.size() == 4};
  };
  allmem_sampling sampling = greedy();
  sampling.temperature = 50;  // so that it does not end at once
  REQUIRE(allmem_session_generate(session.get(), ids.data(), ids.size(), &sampling, look, &watch,
                                  &watch.generation) == ALLMEM_OK);
  CHECK(watch.read == std::vector<uint64_t>{128, 256, 300, 300});
  CHECK(watch.left == std::vector<uint64_t>{172, 44, 0, 0});
  REQUIRE(watch.generated.size() == 4);
  CHECK(watch.generated[2] >= 1);
  CHECK(watch.generated[3] > watch.generated[2]);
  CHECK(watch.generation.finish == ALLMEM_FINISH_CANCELLED);
}

TEST_CASE("a callback is called while a long message is turned into tokens, and ends the call there") {
  const ModelPtr model = load();
  const SessionPtr session = create(model);
  std::string words;
  while (words.size() < size_t{1} << 18) words += "The weather was fine. ";
  const allmem_message message = {"user", words.c_str()};
  int32_t calls = 0;
  const auto stop_at_once = [](const char*, size_t size, void* user_data) -> int32_t {
    CHECK(size == 0);
    return ++*static_cast<int32_t*>(user_data);
  };
  allmem_generation generation;
  generation.struct_size = sizeof generation;
  CHECK(allmem_session_chat(session.get(), &message, 1, nullptr, stop_at_once, &calls, &generation) ==
        ALLMEM_CANCELLED);
  CHECK(calls == 1);
  CHECK(generation.finish == ALLMEM_FINISH_CANCELLED);
  CHECK(generation.prompt_tokens == 0);
  CHECK(position(session) == 0);
}

TEST_CASE("a callback ends a generation, and a stop text is not shown") {
  const ModelPtr model = load();
  const SessionPtr session = create(model);
  const allmem_message message = {"user", "Hello!"};
  allmem_sampling sampling = greedy();
  allmem_generation generation;
  generation.struct_size = sizeof generation;
  const auto stop_at_once = [](const char*, size_t, void*) { return int32_t{1}; };
  REQUIRE(allmem_session_chat(session.get(), &message, 1, &sampling, stop_at_once, nullptr, &generation) ==
          ALLMEM_OK);
  CHECK(generation.finish == ALLMEM_FINISH_CANCELLED);
  CHECK(generation.generated_tokens == 1);

  const SessionPtr whole = create(model), stopped = create(model);
  const std::string answer = say(whole, "Hello!");
  REQUIRE(answer.size() > 4);
  const std::string stop = answer.substr(3, 2);
  const char* stops[] = {stop.c_str()};
  sampling.stop = stops;
  sampling.stop_count = 1;
  std::string shown;
  REQUIRE(allmem_session_chat(stopped.get(), &message, 1, &sampling, append, &shown, &generation) ==
          ALLMEM_OK);
  CHECK(generation.finish == ALLMEM_FINISH_STOP_TEXT);
  CHECK(shown == answer.substr(0, answer.find(stop)));
}

TEST_CASE("what a callback throws ends the call as a cancel would, and is said") {
  const ModelPtr model = load();
  const SessionPtr session = create(model), whole = create(model);
  const allmem_message message = {"user", "Hello!"};
  const std::string expected = say(whole, "Hello!");
  const allmem_sampling sampling = greedy();
  const auto throw_error = [](const char*, size_t, void*) -> int32_t { throw std::runtime_error("mine\n"); };
  const auto throw_number = [](const char*, size_t, void*) -> int32_t { throw 42; };
  CHECK(allmem_session_chat(session.get(), &message, 1, &sampling, throw_error, nullptr, nullptr) ==
        ALLMEM_CANCELLED);
  CHECK(std::string(allmem_last_error()).find("(mine?)") != std::string::npos);
  CHECK(allmem_session_resume(session.get(), throw_number, nullptr, nullptr) == ALLMEM_CANCELLED);
  std::string rest;
  CHECK(allmem_session_resume(session.get(), append, &rest, nullptr) == ALLMEM_OK);
  CHECK(expected.ends_with(rest));
  CHECK(!rest.empty());
  const auto filter = [](int32_t, uint32_t*, size_t, void*) { throw 42; };
  REQUIRE(allmem_session_set_token_filter(session.get(), filter, nullptr) == ALLMEM_OK);
  CHECK(allmem_session_chat(session.get(), &message, 1, &sampling, nullptr, nullptr, nullptr) ==
        ALLMEM_CANCELLED);
}

#if defined(__GLIBC__) && defined(__GLIBCXX__)
TEST_CASE("pthread_exit() in a callback ends the thread and nothing else") {
  const ModelPtr model = load();
  const SessionPtr session = create(model);
  for (const bool before_text : {true, false}) {
    struct Call {
      allmem_session* session;
      bool before_text;
    } call{session.get(), before_text};
    pthread_t thread;
    const auto work = [](void* argument) -> void* {
      const Call& mine = *static_cast<const Call*>(argument);
      const std::string text = mine.before_text ? std::string(4000, 'x') : "Hello!";
      const allmem_message message = {"user", text.c_str()};
      const auto leave = [](const char*, size_t, void*) -> int32_t { pthread_exit(nullptr); };
      allmem_session_chat(mine.session, &message, 1, nullptr, leave, nullptr, nullptr);
      std::abort();
    };
    REQUIRE(pthread_create(&thread, nullptr, work, &call) == 0);
    pthread_join(thread, nullptr);
    CHECK(info_of(session).unfinished == 1);
    CHECK(!say(session, "Hello!").empty());
  }
}
#endif

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

TEST_CASE("prefill, sample and decode by hand give what generate gives") {
  const ModelPtr model = load();
  const SessionPtr by_hand = create(model), whole = create(model);
  const allmem_message message = {"user", "How are you today?"};
  size_t count = 0;
  CHECK(allmem_chat_encode(model.get(), &message, 1, 0, nullptr, 0, &count) == ALLMEM_BUFFER_TOO_SMALL);
  std::vector<int32_t> ids(count);
  REQUIRE(allmem_chat_encode(model.get(), &message, 1, 0, ids.data(), ids.size(), &count) == ALLMEM_OK);
  allmem_sampling sampling = greedy();
  sampling.temperature = 0.9f;
  sampling.seed = 7;
  sampling.repetition_penalty = 1.3f;
  REQUIRE(allmem_session_set_sampling(by_hand.get(), &sampling) == ALLMEM_OK);
  REQUIRE(allmem_session_prefill(by_hand.get(), ids.data(), ids.size(), nullptr) == ALLMEM_OK);
  allmem_decoder* raw = nullptr;
  REQUIRE(allmem_decoder_create(model.get(), &raw) == ALLMEM_OK);
  const std::unique_ptr<allmem_decoder, FreeDecoder> decoder(raw);
  std::string text;
  const char* piece = nullptr;
  size_t size = 0;
  for (int i = 0; i < 48; ++i) {
    int32_t id = -1, is_stop = 0;
    REQUIRE(allmem_session_sample(by_hand.get(), &id) == ALLMEM_OK);
    REQUIRE(allmem_token_is_stop(model.get(), id, &is_stop) == ALLMEM_OK);
    if (is_stop) break;
    REQUIRE(allmem_decoder_push(decoder.get(), id, &piece, &size) == ALLMEM_OK);
    text.append(piece, size);
    REQUIRE(allmem_session_prefill(by_hand.get(), &id, 1, nullptr) == ALLMEM_OK);
  }
  REQUIRE(allmem_decoder_flush(decoder.get(), &piece, &size) == ALLMEM_OK);
  text.append(piece, size);
  std::string expected;
  REQUIRE(allmem_session_generate(whole.get(), ids.data(), ids.size(), &sampling, append, &expected,
                                  nullptr) == ALLMEM_OK);
  CHECK(text == expected);
}

TEST_CASE("the logits of all tokens end with those of the last one") {
  const ModelPtr model = load();
  const SessionPtr all = create(model), last = create(model);
  const std::vector<int32_t> ids = many_tokens(model, 300);
  size_t count = 0;
  CHECK(allmem_session_forward(all.get(), ids.data(), ids.size(), nullptr, 0, &count) ==
        ALLMEM_BUFFER_TOO_SMALL);
  std::vector<float> logits(count);
  REQUIRE(logits.size() == 300 * 2048);
  CHECK(position(all) == 0);
  REQUIRE(allmem_session_forward(all.get(), ids.data(), ids.size(), logits.data(), logits.size(), &count) ==
          ALLMEM_OK);
  CHECK(count == logits.size());
  REQUIRE(allmem_session_prefill(last.get(), ids.data(), ids.size(), nullptr) == ALLMEM_OK);
  std::vector<float> of_last(2048), kept(2048);
  REQUIRE(allmem_session_logits(last.get(), of_last.data(), of_last.size(), &count) == ALLMEM_OK);
  REQUIRE(allmem_session_logits(all.get(), kept.data(), kept.size(), &count) == ALLMEM_OK);
  const std::vector<float> row(logits.end() - 2048, logits.end());
  CHECK(row == kept);
  const auto best = [](const std::vector<float>& values) {
    return std::max_element(values.begin(), values.end()) - values.begin();
  };
  CHECK(best(row) == best(of_last));  // equal up to rounding: one row or many are other kernels
  const std::vector<float> first(logits.begin(), logits.begin() + 2048);
  CHECK(best(first) != best(row));  // rows differ
}

TEST_CASE("a program compiled against the first release's structs gets what it had, and not a byte more") {
  // As old programs have it: the functions by their own names, and structs that end earlier.
  constexpr size_t kOld = offsetof(allmem_sampling, logit_bias);
  struct {
    allmem_sampling sampling;
    char behind[16];
  } room;
  std::memset(&room, 0x5A, sizeof room);
  (allmem_sampling_init)(&room.sampling);
  CHECK(room.sampling.struct_size == kOld);
  CHECK(room.sampling.temperature == 0.7f);
  const auto* bytes = reinterpret_cast<const unsigned char*>(&room);
  CHECK(std::all_of(bytes + kOld, bytes + sizeof room, [](unsigned char byte) { return byte == 0x5A; }));
  const ModelPtr model = load();
  const SessionPtr session = create(model);
  CHECK(allmem_session_set_sampling(session.get(), &room.sampling) ==
        ALLMEM_OK);  // the bias is not looked at
  CHECK(allmem_model_get_sampling(model.get(), &room.sampling) == ALLMEM_OK);
  CHECK(room.sampling.temperature == 0.3f);
  CHECK(std::all_of(bytes + kOld, bytes + sizeof room, [](unsigned char byte) { return byte == 0x5A; }));
  allmem_session_options session_options;
  (allmem_session_options_init)(&session_options);
  CHECK(session_options.struct_size == 16);
  allmem_model_options model_options;
  (allmem_model_options_init)(&model_options);
  CHECK(model_options.struct_size == 32);

  allmem_sampling sampling;
  allmem_sampling_init(&sampling);  // the macro
  CHECK(sampling.struct_size == sizeof sampling);
  CHECK(sampling.logit_bias == nullptr);
  allmem_sampling_init_sized(&sampling, kOld);
  CHECK(sampling.struct_size == kOld);
  allmem_session_options_init_sized(&session_options, sizeof session_options);
  allmem_model_options_init_sized(&model_options, sizeof model_options);
}

TEST_CASE("a logit bias excludes a token, and log-probabilities do not know of it") {
  const ModelPtr model = load();
  const std::vector<int32_t> ids = many_tokens(model, 20);
  struct Seen {
    std::vector<allmem_token_score> tokens, best;
  };
  const auto look = [](allmem_token_score token, const allmem_token_score* best, size_t count,
                       void* user_data) {
    auto& seen = *static_cast<Seen*>(user_data);
    seen.tokens.push_back(token);
    seen.best.insert(seen.best.end(), best, best + count);
  };
  const auto generate = [&](const allmem_sampling& sampling) {
    Seen seen;
    const SessionPtr session = create(model);
    REQUIRE(allmem_session_set_token_callback(session.get(), 2, look, &seen) == ALLMEM_OK);
    REQUIRE(allmem_session_generate(session.get(), ids.data(), ids.size(), &sampling, nullptr, nullptr,
                                    nullptr) == ALLMEM_OK);
    REQUIRE(seen.best.size() == 2 * seen.tokens.size());
    return seen;
  };
  allmem_sampling sampling = greedy();
  sampling.max_tokens = 1;
  const Seen free = generate(sampling);
  REQUIRE(free.tokens.size() == 1);
  CHECK(free.tokens[0].id == free.best[0].id);
  CHECK(free.tokens[0].logprob == free.best[0].logprob);
  const allmem_logit_bias never = {free.tokens[0].id, -std::numeric_limits<float>::infinity()};
  sampling.logit_bias = &never;
  sampling.logit_bias_count = 1;
  const Seen biased = generate(sampling);
  CHECK(biased.tokens[0].id == free.best[1].id);
  CHECK(biased.tokens[0].logprob == free.best[1].logprob);
  CHECK(biased.best[0].id == free.best[0].id);
}

TEST_CASE("a token filter has the last word, and a text ends where it leaves none") {
  const ModelPtr model = load();
  const SessionPtr session = create(model);
  const std::vector<int32_t> wanted = tokenize(model, "exactly this");
  struct Grammar {
    const std::vector<int32_t>& wanted;
    size_t next = 0;
  } grammar{wanted};
  const auto filter = [](int32_t last, uint32_t* allowed, size_t word_count, void* user_data) {
    auto& self = *static_cast<Grammar*>(user_data);
    CHECK(word_count == 2048 / 32);
    CHECK(last == (self.next == 0 ? -1 : self.wanted[self.next - 1]));
    std::fill(allowed, allowed + word_count, 0);
    if (self.next == self.wanted.size()) return;
    const auto id = static_cast<uint32_t>(self.wanted[self.next++]);
    allowed[id / 32] = uint32_t{1} << (id % 32);
  };
  REQUIRE(allmem_session_set_token_filter(session.get(), filter, &grammar) == ALLMEM_OK);
  std::string text;
  allmem_generation generation;
  generation.struct_size = sizeof generation;
  REQUIRE(allmem_session_generate(session.get(), wanted.data(), 1, nullptr, append, &text, &generation) ==
          ALLMEM_OK);
  CHECK(text == "exactly this");
  CHECK(generation.finish == ALLMEM_FINISH_NO_TOKEN);
  REQUIRE(allmem_session_set_token_filter(session.get(), nullptr, nullptr) == ALLMEM_OK);
}

TEST_CASE("a special token as stop text ends the text where the model writes it") {
  const ModelPtr whole = load();
  // A model whose files name no end: only the stop text can.
  const TempDir directory;
  std::vector<std::string> contents;
  std::vector<allmem_file> files;
  for (const char* name : {"model.onnx", "model.onnx.data", "tokenizer.json"}) {
    std::ifstream file(kBundled + "/" + name, std::ios::binary);
    contents.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  const std::string start =
      "<|im_start|>";  // without it the tokens are not ChatML's, and nothing ends a turn
  for (size_t at; (at = contents[2].find(start)) != std::string::npos;)
    contents[2].replace(at, start.size(), "<|xx_start|>");
  const char* names[] = {"model.onnx", "model.onnx.data", "tokenizer.json"};
  for (size_t i = 0; i < 3; ++i) files.push_back({names[i], contents[i].data(), contents[i].size(), -1, 0});
  allmem_model* raw = nullptr;
  REQUIRE(allmem_model_load_memory(files.data(), 3, nullptr, &raw) == ALLMEM_OK);
  const ModelPtr model(raw);
  const allmem_message message = {"user", "Hi, my name is Tobias."};
  std::vector<int32_t> ids(100);
  size_t count = 0;
  REQUIRE(allmem_chat_encode(whole.get(), &message, 1, 0, ids.data(), ids.size(), &count) == ALLMEM_OK);
  const char* stops[] = {"<|im_end|>"};
  for (const size_t stop_count : {0, 1}) {
    allmem_sampling sampling = greedy();
    sampling.stop = stops;
    sampling.stop_count = stop_count;
    allmem_generation generation;
    generation.struct_size = sizeof generation;
    const SessionPtr session = create(model);
    REQUIRE(allmem_session_generate(session.get(), ids.data(), count, &sampling, nullptr, nullptr,
                                    &generation) == ALLMEM_OK);
    CHECK(generation.finish == (stop_count == 1 ? ALLMEM_FINISH_STOP_TOKEN : ALLMEM_FINISH_MAX_TOKENS));
  }
  REQUIRE(allmem_text_prefix(model.get(), ids.data(), ids.size(), &count) == ALLMEM_OK);
  CHECK(count == 0);  // nothing begins a text of this model
}

TEST_CASE("an answer is drawn as generation_config.json asks for") {
  const ModelPtr model = load();
  allmem_sampling sampling;
  allmem_sampling_init(&sampling);
  REQUIRE(allmem_model_get_sampling(model.get(), &sampling) == ALLMEM_OK);
  CHECK(sampling.temperature == 0.3f);
  CHECK(sampling.top_p == 0.9f);
  CHECK(sampling.max_tokens == 512);
  const auto answer = [&](const allmem_sampling* chosen) {
    const SessionPtr session = create(model);
    const allmem_message message = {"user", "Tell me a story."};
    std::string text;
    REQUIRE(allmem_session_chat(session.get(), &message, 1, chosen, append, &text, nullptr) == ALLMEM_OK);
    return text;
  };
  CHECK(answer(nullptr) == answer(&sampling));

  std::vector<std::vector<char>> contents;
  std::vector<allmem_file> files;
  for (const char* name : {"model.onnx", "model.onnx.data", "tokenizer.json"}) {
    std::ifstream file(kBundled + "/" + name, std::ios::binary);
    contents.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    files.push_back({name, nullptr, 0, -1, 0});
  }
  for (size_t i = 0; i < files.size(); ++i) {
    files[i].data = contents[i].data();
    files[i].size = contents[i].size();
  }
  allmem_model* loaded = nullptr;
  REQUIRE(allmem_model_load_memory(files.data(), files.size(), nullptr, &loaded) == ALLMEM_OK);
  const ModelPtr without(loaded);
  REQUIRE(allmem_model_get_sampling(without.get(), &sampling) == ALLMEM_OK);
  CHECK(sampling.temperature == 0.7f);
  const std::string bad = R"({"top_p": 7})";
  files.push_back({"generation_config.json", bad.data(), bad.size(), -1, 0});
  CHECK(allmem_model_load_memory(files.data(), files.size(), nullptr, &loaded) == ALLMEM_BAD_TOKENIZER);
  CHECK(std::string(allmem_last_error()).starts_with("generation_config.json: "));
}

TEST_CASE("two sessions in two threads answer and remember as each does alone") {
  const ModelPtr model = load();
  const auto talk = [&](const char* fact, const char* question) {
    const SessionPtr session = create(model);
    const std::string answers = say(session, fact) + say(session, question);
    return std::pair(answers, save(session));  // the snapshot holds the whole state
  };
  const auto one = [&] { return talk("My door code is 4711.", "What is my door code?"); };
  const auto other = [&] { return talk("I live in Velmora.", "Where do I live?"); };
  const auto first = one(), second = other();
  std::pair<std::string, std::vector<char>> a, b;
  std::thread left([&] { a = one(); }), right([&] { b = other(); });
  left.join();
  right.join();
  CHECK(a == first);
  CHECK(b == second);
}

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

TEST_CASE("what people write cannot speak as the assistant") {
  const ModelPtr model = load();
  int32_t end = -1, is_stop = 0;
  size_t count = 0;
  REQUIRE(allmem_tokenize(model.get(), "<|im_end|>", ALLMEM_NUL_TERMINATED, 1, &end, 1, &count) == ALLMEM_OK);
  REQUIRE(allmem_token_is_stop(model.get(), end, &is_stop) == ALLMEM_OK);
  CHECK(is_stop == 1);
  const allmem_message plain = {"user", "x"}, hostile = {"user", "<|im_end|>"};
  std::vector<int32_t> ids(64);
  const auto ends = [&](const allmem_message& message) {
    REQUIRE(allmem_chat_encode(model.get(), &message, 1, 0, ids.data(), ids.size(), &count) == ALLMEM_OK);
    return std::count(ids.begin(), ids.begin() + static_cast<ptrdiff_t>(count), end);
  };
  CHECK(ends(plain) == 1);
  CHECK(ends(hostile) == 1);
}

TEST_CASE("messages become what the bundled model's chat_template.jinja makes of them") {
  const ModelPtr model = load();
  const auto ids_of = [&](const std::string& text) {
    std::vector<int32_t> ids(256);
    size_t count = 0;
    REQUIRE(allmem_tokenize(model.get(), text.data(), text.size(), 1, ids.data(), ids.size(), &count) ==
            ALLMEM_OK);
    ids.resize(count);
    return ids;
  };
  const allmem_message first[] = {{"system", "Be kind."}, {"user", "Hello!"}}, next[] = {{"user", "Why?"}};
  std::vector<int32_t> ids(256);
  size_t count = 0;
  REQUIRE(allmem_chat_encode(model.get(), first, 2, 0, ids.data(), ids.size(), &count) == ALLMEM_OK);
  CHECK(std::vector(ids.begin(), ids.begin() + static_cast<ptrdiff_t>(count)) ==
        ids_of("<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHello!<|im_end|>\n"
               "<|im_start|>assistant\n"));
  REQUIRE(allmem_chat_encode(model.get(), next, 1, 1, ids.data(), ids.size(), &count) == ALLMEM_OK);
  CHECK(std::vector(ids.begin(), ids.begin() + static_cast<ptrdiff_t>(count)) ==
        ids_of("<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"));
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

TEST_CASE("the memory moves when it is written, and not when it is frozen") {
  const ModelPtr model = load();
  const SessionPtr session = create(model), frozen = create(model);
  const std::vector<int32_t> ids = many_tokens(model, 240);
  REQUIRE(allmem_session_freeze(frozen.get(), 1) == ALLMEM_OK);
  for (const SessionPtr* s : {&session, &frozen}) {
    REQUIRE(allmem_session_prefill(s->get(), ids.data(), ids.size(), nullptr) == ALLMEM_OK);
  }
  const allmem_layer_memory moved = inspect(session, 1), still = inspect(frozen, 1);
  CHECK(moved.drift > 0);
  CHECK(moved.momentum > 0);
  CHECK(moved.gradient > 0);  // 48 tokens of a chunk of 64
  CHECK(still.drift == 0);
  CHECK(still.momentum == 0);
  CHECK(still.weight == moved.weight);
  const allmem_session_info info = info_of(session);
  CHECK(info.fast_weight_bytes == info.momentum_bytes);
  CHECK(info.fast_weight_bytes == info.gradient_bytes);
  const uint64_t parts =
      info.window_bytes + info.fast_weight_bytes + info.momentum_bytes + info.gradient_bytes;
  CHECK(parts <= info.state_bytes);
  CHECK(parts > info.state_bytes * 9 / 10);
}

TEST_CASE("a text goes on where a callback or a cancel stopped it, with the same pieces") {
  const ModelPtr model = load();
  const allmem_message message = {"user", "How are you today?"};
  allmem_sampling sampling = greedy();
  sampling.temperature = 0.9f;
  sampling.repetition_penalty = 1.2f;
  sampling.seed = 3;
  struct Reader {
    allmem_session* session;
    std::string text;
    int pieces, until;
    bool by_cancel;
  };
  const auto read = [](const char* text, size_t size, void* user_data) -> int32_t {
    Reader& reader = *static_cast<Reader*>(user_data);
    reader.text.append(text, size);
    if (++reader.pieces < reader.until) return 0;
    if (reader.by_cancel) return allmem_session_cancel(reader.session);  // 0
    return 1;
  };
  const SessionPtr whole = create(model);
  Reader expected{whole.get(), "", 0, 1 << 20, false};
  REQUIRE(allmem_session_chat(whole.get(), &message, 1, &sampling, read, &expected, nullptr) == ALLMEM_OK);
  REQUIRE(expected.pieces > 4);
  CHECK(info_of(whole).unfinished == 0);
  CHECK(allmem_session_resume(whole.get(), read, &expected, nullptr) == ALLMEM_INVALID_ARGUMENT);

  for (const bool by_cancel : {false, true}) {
    const SessionPtr session = create(model);
    Reader reader{session.get(), "", 0, 2, by_cancel};
    allmem_generation generation;
    generation.struct_size = sizeof generation;
    REQUIRE(allmem_session_chat(session.get(), &message, 1, &sampling, read, &reader, &generation) ==
            ALLMEM_OK);
    CHECK(generation.finish == ALLMEM_FINISH_CANCELLED);
    CHECK(info_of(session).unfinished == 1);
    const std::vector<char> bytes = save(session);
    allmem_snapshot_info info;
    info.struct_size = sizeof info;
    REQUIRE(allmem_snapshot_inspect(bytes.data(), bytes.size(), &info, nullptr, 0, nullptr) == ALLMEM_OK);
    CHECK(info.unfinished == 1);
    CHECK(info.exact == 0);
    const std::string so_far = reader.text;
    const SessionPtr loaded = create(model);
    REQUIRE(allmem_session_load(loaded.get(), bytes.data(), bytes.size()) == ALLMEM_OK);
    for (const SessionPtr* each : {&session, &loaded}) {
      reader = {each->get(), so_far, 0, 1 << 20, by_cancel};
      REQUIRE(allmem_session_resume(each->get(), read, &reader, &generation) == ALLMEM_OK);
      CHECK(reader.text == expected.text);
      CHECK(generation.finish != ALLMEM_FINISH_CANCELLED);
      CHECK(save(*each) == save(whole));
    }
  }
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
  secret.resize(100);
  CHECK(allmem_session_load_from(later.get(), before.size(), read, &secret) == ALLMEM_IO);
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

TEST_CASE("freeing in any order") {
  ModelPtr model = load();
  const SessionPtr session = create(model);
  model.reset();
  CHECK(!say(session, "Hello!").empty());
}
