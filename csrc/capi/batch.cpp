// Batches: several sessions that read at once, each with a status of its own.
#include <deque>

#include "capi/handles.h"

using namespace allmem;
using namespace allmem::capi;

namespace {

// What a call gives for one item. Its sentence is kept until the first of them is told.
struct Outcome {
  int32_t status = ALLMEM_OK;
  std::string sentence;

  void fail(int32_t with, std::string because) {
    status = with;
    sentence = std::move(because);
  }
};

// The sessions of a call, claimed until it ends.
struct Call {
  explicit Call(std::span<allmem_batch_item> of) : items(of), outcomes(of.size()) {
    for (size_t i = 0; i < items.size(); ++i) {
      try {
        add(i);
      } catch (const Error& error) {
        outcomes[i].fail(status_of(error.code()), error.what());
      }
    }
  }

  void add(size_t i) {
    const allmem_batch_item& item = items[i];
    require(item.session != nullptr, "The session of an item is NULL.");
    const auto ids = input(item.ids, item.id_count, "The list of ids");
    if (!claims.emplace_back(item.session->busy).held())
      return outcomes[i].fail(ALLMEM_IN_USE, kSessionInUse);
    Writer& writer = *item.session->writer;
    writer.forget_cancel();
    reads.push_back({.writer = &writer, .ids = ids});
    of_read.push_back(i);
  }

  // Writes what the items receive; gives the first status that is not OK.
  int32_t end() {
    for (allmem_batch_item& item : items) item.read = 0;
    for (size_t i = 0; i < reads.size(); ++i) {
      const Writer::HandItem& read = reads[i];
      Outcome& outcome = outcomes[of_read[i]];
      items[of_read[i]].read = read.read;
      if (read.error) {
        outcome.fail(status_of(read.error->code()), read.error->what());
      } else if (read.read < read.ids.size()) {
        outcome.fail(ALLMEM_CANCELLED, kReadingCancelled);
      }
    }
    const Outcome* first = nullptr;
    for (size_t i = 0; i < items.size(); ++i) {
      items[i].status = outcomes[i].status;
      if (first == nullptr && outcomes[i].status != ALLMEM_OK) first = &outcomes[i];
    }
    return first == nullptr ? ALLMEM_OK : fail(first->status, first->sentence.c_str());
  }

  std::span<allmem_batch_item> items;
  std::vector<Outcome> outcomes;
  std::deque<Claim> claims;
  std::vector<Writer::HandItem> reads;
  std::vector<size_t> of_read;
};

// Runs `body` on a batch that no other thread is using.
template <class Body>
int32_t with_batch(allmem_batch* batch, const Body& body) {
  return guarded([&]() -> int32_t {
    require(batch != nullptr, "The batch is NULL.");
    const Claim claim(batch->busy);
    if (!claim.held()) return fail(ALLMEM_IN_USE, "Another thread is using this batch; give each its own.");
    return body(batch->batch);
  });
}

}  // namespace

int32_t allmem_batch_create(const allmem_model* model, const allmem_session_options* options,
                            allmem_batch** batch) {
  return guarded([&] {
    require(model != nullptr, "The model is NULL.");
    require(batch != nullptr, "`batch` is NULL; it receives the batch.");
    *batch = new allmem_batch{.shared = model->shared,
                              .batch = Batch(model->shared->model, session_options(options))};
    return ALLMEM_OK;
  });
}

void allmem_batch_free(allmem_batch* batch) { delete batch; }

int32_t allmem_batch_prefill(allmem_batch* batch, allmem_batch_item* items, size_t item_count) {
  return with_batch(batch, [&](Batch& core) {
    input(items, item_count, "The list of items");
    Call call({items, item_count});
    Writer::read(core, call.reads);
    return call.end();
  });
}

int32_t allmem_batch_wipe(allmem_batch* batch) {
  return with_batch(batch, [&](Batch& core) {
    core.wipe();
    return ALLMEM_OK;
  });
}
