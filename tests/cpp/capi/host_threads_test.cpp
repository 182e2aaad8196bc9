// A host's threads in the place of the library's: that they do the work, and that nothing else changes.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "app.h"

using namespace allmem::test;

namespace {

constexpr int32_t kThreads = 3;

struct Host {
  enum Way { kThreadEach, kBackwards, kThrow } way = kThreadEach;
  size_t calls = 0, most = 0;  // of tasks in one call
};

void run_tasks(allmem_task task, void* argument, size_t count, void* user_data) {
  Host& host = *static_cast<Host*>(user_data);
  ++host.calls;
  host.most = std::max(host.most, count);
  if (host.way == Host::kThrow) throw std::runtime_error("no threads");
  if (host.way == Host::kBackwards) {
    for (size_t i = count; i-- > 0;) task(argument, i);
    return;
  }
  std::vector<std::thread> threads;
  for (size_t i = 0; i < count; ++i) threads.emplace_back(task, argument, i);
  for (std::thread& thread : threads) thread.join();
}

SessionPtr create_hosted(const ModelPtr& model, Host& host, int32_t threads = kThreads) {
  allmem_session_options options;
  allmem_session_options_init(&options);
  options.threads = threads;
  options.run_tasks = run_tasks;
  options.user_data = &host;
  allmem_session* session = nullptr;
  REQUIRE(allmem_session_create(model.get(), &options, &session) == ALLMEM_OK);
  return SessionPtr(session);
}

int32_t prefill(const SessionPtr& session, const std::vector<int32_t>& ids) {
  return allmem_session_prefill(session.get(), ids.data(), ids.size(), nullptr);
}

}  // namespace

TEST_CASE("a host's threads give the same bits as the library's, in whatever order they run") {
  const ModelPtr model = load();
  const std::vector<int32_t> ids = many_tokens(model, 300);
  const SessionPtr own = create(model, kThreads);
  REQUIRE(prefill(own, ids) == ALLMEM_OK);
  const std::string answer = say(own, "How are you?");
  const std::vector<char> state = save(own);  // the last logits are in it
  for (const Host::Way way : {Host::kThreadEach, Host::kBackwards}) {
    Host host{way};
    const SessionPtr session = create_hosted(model, host);
    CHECK(info_of(session).threads == kThreads);
    REQUIRE(prefill(session, ids) == ALLMEM_OK);
    CHECK(host.calls > 0);
    CHECK(host.most == static_cast<size_t>(kThreads));
    CHECK(say(session, "How are you?") == answer);
    CHECK(save(session) == state);
  }
}

TEST_CASE("a clone uses the host's threads, and a session of one thread needs none") {
  const ModelPtr model = load();
  const std::vector<int32_t> ids = many_tokens(model, 128);
  Host host;
  const SessionPtr session = create_hosted(model, host);
  allmem_session* made = nullptr;
  REQUIRE(allmem_session_clone(session.get(), &made) == ALLMEM_OK);
  const SessionPtr copy(made);
  CHECK(host.calls == 0);
  REQUIRE(prefill(copy, ids) == ALLMEM_OK);
  CHECK(host.calls > 0);

  Host unused;
  const SessionPtr alone = create_hosted(model, unused, 1);
  REQUIRE(prefill(alone, ids) == ALLMEM_OK);
  CHECK(unused.calls == 0);
}

TEST_CASE("what a host's threads throw is said, and poisons the session until it is reset") {
  const ModelPtr model = load();
  const std::vector<int32_t> ids = many_tokens(model, 128);
  Host host{Host::kThrow};
  const SessionPtr session = create_hosted(model, host), own = create(model, kThreads);
  CHECK(prefill(session, ids) == ALLMEM_CANCELLED);
  CHECK(std::string(allmem_last_error()).find("no threads") != std::string::npos);
  CHECK(prefill(session, ids) == ALLMEM_POISONED);
  REQUIRE(allmem_session_reset(session.get()) == ALLMEM_OK);
  host.way = Host::kBackwards;
  REQUIRE(prefill(session, ids) == ALLMEM_OK);
  REQUIRE(prefill(own, ids) == ALLMEM_OK);
  CHECK(save(session) == save(own));
}

TEST_CASE("options of before there were a host's threads are taken, and those cut within a field refused") {
  const ModelPtr model = load();
  Host host;
  allmem_session_options options;
  allmem_session_options_init(&options);
  options.threads = kThreads;
  options.run_tasks = run_tasks;
  options.user_data = &host;
  allmem_session* made = nullptr;
  options.struct_size = offsetof(allmem_session_options, user_data);
  CHECK(allmem_session_create(model.get(), &options, &made) == ALLMEM_INVALID_ARGUMENT);
  CHECK(made == nullptr);
  options.struct_size = offsetof(allmem_session_options, run_tasks);
  REQUIRE(allmem_session_create(model.get(), &options, &made) == ALLMEM_OK);
  const SessionPtr session(made);
  REQUIRE(prefill(session, many_tokens(model, 128)) == ALLMEM_OK);
  CHECK(host.calls == 0);
}
