// The C API where memory is short: a child process may take no more than it has.
#include <doctest/doctest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <fstream>

#include "allmem/allmem.h"

// Sanitizers need address space of their own, and qemu-user ignores the limit.
#if defined(__linux__) && defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)

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

}  // namespace

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
