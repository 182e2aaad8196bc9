// Sessions that read at once: each as alone, each with a status of its own.
#include <atomic>
#include <thread>

#include "app.h"

using namespace allmem::test;

namespace {

struct FreeBatch {
  void operator()(allmem_batch* batch) const { allmem_batch_free(batch); }
};
using BatchPtr = std::unique_ptr<allmem_batch, FreeBatch>;

BatchPtr create_batch(const ModelPtr& model, int32_t threads = 1) {
  allmem_session_options options;
  allmem_session_options_init(&options);
  options.threads = threads;
  allmem_batch* batch = nullptr;
  REQUIRE(allmem_batch_create(model.get(), &options, &batch) == ALLMEM_OK);
  return BatchPtr(batch);
}

allmem_batch_item item_of(const SessionPtr& session, const std::vector<int32_t>& ids) {
  return {session.get(), ids.data(), ids.size(), 99, 99, 0};
}

const char* const kTexts[] = {"My name is Ada.", "The code is 4711, and the cat is on the mat.", "Hello!"};

}  // namespace

TEST_CASE("a server's loop: sessions in a batch draw and save what each does alone") {
  const ModelPtr model = load();
  BatchPtr batch = create_batch(model, 2);
  std::vector<SessionPtr> together, alone;
  std::vector<std::vector<int32_t>> next, same;
  for (uint64_t i = 0; i < 3; ++i) {
    allmem_sampling sampling;
    allmem_sampling_init(&sampling);
    sampling.seed = i;
    for (auto* sessions : {&together, &alone}) {
      sessions->push_back(create(model));
      REQUIRE(allmem_session_set_sampling(sessions->back().get(), &sampling) == ALLMEM_OK);
    }
    next.push_back(tokenize(model, kTexts[i]));
  }
  REQUIRE(allmem_session_freeze(together[1].get(), 1) == ALLMEM_OK);
  REQUIRE(allmem_session_freeze(alone[1].get(), 1) == ALLMEM_OK);
  same = next;
  for (int step = 0; step < 40; ++step) {
    std::vector<allmem_batch_item> items;
    for (size_t i = 0; i < 3; ++i) {
      if (step % 5 != 0 || i != 2) items.push_back(item_of(together[i], next[i]));  // one comes and goes
    }
    REQUIRE(allmem_batch_prefill(batch.get(), items.data(), items.size()) == ALLMEM_OK);
    for (const allmem_batch_item& item : items) {
      CHECK(item.status == ALLMEM_OK);
      CHECK(item.read == item.id_count);
    }
    for (size_t i = 0; i < 3; ++i) {
      if (step % 5 == 0 && i == 2) continue;
      int32_t drawn = 0, alone_drawn = 0;
      REQUIRE(allmem_session_prefill(alone[i].get(), same[i].data(), same[i].size(), nullptr) == ALLMEM_OK);
      REQUIRE(allmem_session_sample(together[i].get(), &drawn) == ALLMEM_OK);
      REQUIRE(allmem_session_sample(alone[i].get(), &alone_drawn) == ALLMEM_OK);
      CHECK(drawn == alone_drawn);
      next[i] = same[i] = {drawn};
    }
  }
  CHECK(allmem_batch_wipe(batch.get()) == ALLMEM_OK);
  for (size_t i = 0; i < 3; ++i) CHECK(save(together[i]) == save(alone[i]));
}

TEST_CASE("what is wrong with one item is its status, and the first of them the call's") {
  const ModelPtr model = load(), other = load();
  const SessionPtr good = create(model), twice = create(model), stranger = create(other);
  const BatchPtr batch = create_batch(model);
  const std::vector<int32_t> ids = {5, 6}, bad = {5, -1};
  allmem_batch_item items[] = {item_of(good, ids), item_of(twice, bad), item_of(twice, ids),
                               item_of(twice, ids), item_of(stranger, ids)};
  CHECK(allmem_batch_prefill(batch.get(), items, 2) == ALLMEM_INVALID_ARGUMENT);
  CHECK(std::string(allmem_last_error()).find("Token -1") != std::string::npos);
  CHECK(items[0].status == ALLMEM_OK);
  CHECK(items[0].read == 2);
  CHECK(items[1].status == ALLMEM_INVALID_ARGUMENT);
  CHECK(items[1].read == 0);
  CHECK(allmem_batch_prefill(batch.get(), items + 2, 3) == ALLMEM_IN_USE);
  CHECK(items[2].status == ALLMEM_OK);
  CHECK(items[3].status == ALLMEM_IN_USE);
  CHECK(items[4].status == ALLMEM_INVALID_ARGUMENT);
  CHECK(allmem_batch_prefill(batch.get(), items + 4, 1) == ALLMEM_INVALID_ARGUMENT);
  CHECK(std::string(allmem_last_error()).find("another model") != std::string::npos);
}

TEST_CASE("a cancel from another thread ends one session of a batch, and the others go on") {
  const ModelPtr model = load();
  const SessionPtr cancelled = create(model), other = create(model);
  const BatchPtr batch = create_batch(model);
  const std::vector<int32_t> long_text(200'000, 5), short_text(300, 5);
  std::atomic<bool> done = false;
  std::thread canceller([&] {
    while (!done) allmem_session_cancel(cancelled.get());
  });
  allmem_batch_item items[] = {item_of(cancelled, long_text), item_of(other, short_text)};
  CHECK(allmem_batch_prefill(batch.get(), items, 2) == ALLMEM_CANCELLED);
  done = true;
  canceller.join();
  CHECK(items[0].status == ALLMEM_CANCELLED);
  CHECK(items[0].read < long_text.size());
  CHECK(items[1].status == ALLMEM_OK);
  CHECK(items[1].read == short_text.size());
  float logit = 0;
  size_t count = 0;
  CHECK(allmem_session_logits(cancelled.get(), &logit, 1, &count) == ALLMEM_INVALID_ARGUMENT);
  CHECK(allmem_session_logits(other.get(), &logit, 1, &count) == ALLMEM_BUFFER_TOO_SMALL);
}

TEST_CASE("a session that is in a batch is in use for everybody else, and so is the batch") {
  const ModelPtr model = load();
  const SessionPtr session = create(model), other = create(model);
  const BatchPtr batch = create_batch(model);
  const std::vector<int32_t> ids(200'000, 5), one = {5};
  std::atomic<bool> done = false;
  std::thread reader([&] {
    allmem_batch_item item = item_of(session, ids);
    int32_t status = ALLMEM_IN_USE;  // while the other thread uses the batch
    while (status == ALLMEM_IN_USE) status = allmem_batch_prefill(batch.get(), &item, 1);
    CHECK(status == ALLMEM_CANCELLED);
    done = true;
  });
  allmem_batch_item item = item_of(other, one);
  int32_t status = ALLMEM_OK;
  while (!done && status != ALLMEM_IN_USE) status = allmem_batch_prefill(batch.get(), &item, 1);
  CHECK(status == ALLMEM_IN_USE);
  status = ALLMEM_OK;  // it claims its sessions a moment later
  while (!done && status != ALLMEM_IN_USE) status = allmem_session_freeze(session.get(), 0);
  CHECK(status == ALLMEM_IN_USE);
  while (!done) allmem_session_cancel(session.get());
  reader.join();
}
