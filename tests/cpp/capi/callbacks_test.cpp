// Callbacks of the C API, and cancelling: when they are called, and how they end a call.
#include <doctest/doctest.h>
#include <pthread.h>

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "app.h"

using namespace allmem::test;

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
  const auto stop_at_text = [](const char*, size_t size, void*) { return int32_t{size > 0}; };
  allmem_generation generation;
  generation.struct_size = sizeof generation;
  CHECK(allmem_session_chat(session.get(), &message, 1, nullptr, stop_at_once, &calls, &generation) ==
        ALLMEM_CANCELLED);
  CHECK(calls == 1);
  CHECK(generation.finish == ALLMEM_FINISH_CANCELLED);
  CHECK(generation.prompt_tokens == 0);
  CHECK(position(session) == 0);

  const allmem_message hello = {"user", "Hello!"};  // an older answer, which is not gone on with instead
  REQUIRE(allmem_session_chat(session.get(), &hello, 1, nullptr, stop_at_text, nullptr, nullptr) ==
          ALLMEM_OK);
  REQUIRE(info_of(session).unfinished == 1);
  const uint64_t read = position(session);
  CHECK(allmem_session_chat(session.get(), &message, 1, nullptr, stop_at_once, &calls, &generation) ==
        ALLMEM_CANCELLED);
  CHECK(generation.prompt_left == 0);
  CHECK(position(session) == read);
  CHECK(info_of(session).unfinished == 0);
  CHECK(allmem_session_resume(session.get(), nullptr, nullptr, &generation) == ALLMEM_INVALID_ARGUMENT);
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
