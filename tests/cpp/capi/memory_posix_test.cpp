// The C API where memory is short: a child process may take no more than it has.
#include <doctest/doctest.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <functional>

#include "allmem/allmem.h"

// Sanitizers need address space of their own, and qemu-user ignores the limit.
#if defined(__linux__) && defined(__x86_64__) && !defined(ALLMEM_SANITIZED)

namespace {

// 0 when all is as it should be. Run in a process of its own.
int create_without_memory(const allmem_model* model) {
  size_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  const rlim_t used = pages * static_cast<rlim_t>(sysconf(_SC_PAGESIZE));
  rlimit limit{};
  if (getrlimit(RLIMIT_AS, &limit) != 0) return 2;
  const rlimit tight{used + (1 << 20), limit.rlim_max};
  if (setrlimit(RLIMIT_AS, &tight) != 0) return 3;
  allmem_session_options options;
  allmem_session_options_init(&options);
  options.threads = 1;  // no stacks to be mapped
  // What earlier tests gave back may hold some.
  int32_t status = ALLMEM_OK;
  allmem_session* session = nullptr;
  for (int i = 0; i < 10'000 && status == ALLMEM_OK; ++i) {
    session = nullptr;
    status = allmem_session_create(model, &options, &session);
  }
  if (status != ALLMEM_OUT_OF_MEMORY) return 4;
  if (session != nullptr || std::strstr(allmem_last_error(), "not enough memory") == nullptr) return 5;
  if (setrlimit(RLIMIT_AS, &limit) != 0) return 6;
  return allmem_session_create(model, &options, &session) == ALLMEM_OK ? 0 : 7;
}

// 0 when loading and creating with so much more memory than there is now work, or say that it is too little.
int load_with(size_t more) {
  size_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  const rlim_t tight = pages * static_cast<rlim_t>(sysconf(_SC_PAGESIZE)) + more;
  const rlimit limit{tight, tight};
  if (setrlimit(RLIMIT_AS, &limit) != 0) return 2;
  allmem_model* model = nullptr;
  int32_t status = allmem_model_load(ALLMEM_BUNDLED_MODEL, nullptr, &model);
  if (status != ALLMEM_OK) return status == ALLMEM_OUT_OF_MEMORY ? 0 : 100 + status;
  allmem_session_options options;
  allmem_session_options_init(&options);
  options.threads = 2;
  allmem_session* session = nullptr;
  status = allmem_session_create(model, &options, &session);
  return status == ALLMEM_OK || status == ALLMEM_OUT_OF_MEMORY ? 0 : 200 + status;
}

// Bytes of this process that are in memory.
size_t resident() {
  size_t pages = 0, in_memory = 0;
  std::ifstream("/proc/self/statm") >> pages >> in_memory;
  return in_memory * static_cast<size_t>(sysconf(_SC_PAGESIZE));
}

int in_a_child(const std::function<int()>& body) {
  const pid_t child = fork();
  if (child == 0) _exit(body());
  int status = -1;
  REQUIRE(waitpid(child, &status, 0) == child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace

TEST_CASE("too little memory is said to be that, wherever it runs out") {
  for (size_t more = 0; more < size_t{14} << 20; more += size_t{1} << 18) {
    CAPTURE(more);
    CHECK(in_a_child([&] { return load_with(more); }) == 0);
  }
}

TEST_CASE("a reset takes no memory for a window that nothing is in, and gives back what was taken") {
  allmem_model_options options;
  allmem_model_options_init(&options);
  options.window = 1 << 18;
  allmem_model* model = nullptr;
  REQUIRE(allmem_model_load(ALLMEM_BUNDLED_MODEL, &options, &model) == ALLMEM_OK);
  allmem_session* session = nullptr;
  REQUIRE(allmem_session_create(model, nullptr, &session) == ALLMEM_OK);
  allmem_session_info info;
  info.struct_size = sizeof info;
  REQUIRE(allmem_session_get_info(session, &info) == ALLMEM_OK);
  REQUIRE(info.state_bytes > size_t{64} << 20);
  const size_t before = resident();
  CHECK(allmem_session_reset(session) == ALLMEM_OK);
  CHECK(resident() < before + info.state_bytes / 8);
  CHECK(allmem_session_wipe(session) == ALLMEM_OK);  // writes to all of it
  CHECK(resident() < before + info.state_bytes / 8);
  allmem_session_free(session);
  allmem_model_free(model);
}

TEST_CASE("a session can be wiped, saved and asked on a thread with a small stack") {
  allmem_model* model = nullptr;
  REQUIRE(allmem_model_load(ALLMEM_BUNDLED_MODEL, nullptr, &model) == ALLMEM_OK);
  allmem_session* session = nullptr;
  REQUIRE(allmem_session_create(model, nullptr, &session) == ALLMEM_OK);
  const auto work = [](void* given) -> void* {
    auto* session = static_cast<allmem_session*>(given);
    const allmem_message message = {"user", "Hello!"};
    size_t count = 0;
    const bool good =
        allmem_session_chat(session, &message, 1, nullptr, nullptr, nullptr, nullptr) == ALLMEM_OK &&
        allmem_session_save(session, nullptr, 0, nullptr, 0, &count) == ALLMEM_BUFFER_TOO_SMALL &&
        allmem_session_wipe(session) == ALLMEM_OK;
    return good ? given : nullptr;
  };
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  REQUIRE(pthread_attr_setstacksize(&attributes, size_t{128} << 10) == 0);
  pthread_t thread;
  REQUIRE(pthread_create(&thread, &attributes, work, session) == 0);
  void* result = nullptr;
  pthread_join(thread, &result);
  CHECK(result == session);
  allmem_session_free(session);
  allmem_model_free(model);
}

TEST_CASE("a session that does not fit into memory is refused, and its model is still good") {
  allmem_model* model = nullptr;
  REQUIRE(allmem_model_load(ALLMEM_BUNDLED_MODEL, nullptr, &model) == ALLMEM_OK);
  const pid_t child = fork();
  if (child == 0) _exit(create_without_memory(model));
  REQUIRE(child > 0);
  int status = -1;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
  allmem_model_free(model);
}

#endif
