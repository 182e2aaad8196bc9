// Checks what each session is to read, and has one runner read it all.
#include "runtime/batch.h"

#include <algorithm>
#include <new>
#include <vector>

#include "platform/wipe.h"
#include "runtime/runner.h"

namespace allmem {

struct Batch::Impl {
  Impl(std::shared_ptr<const Model> of, const SessionOptions& options)
      : model(std::move(of)),
        vocab(static_cast<size_t>(model->info().vocab_size)),
        runner(model->program(), options) {}

  // Throws what Session::forward() would.
  void check(const Item& item) const {
    if (&item.session->model() != model.get()) {
      throw Error(
          ErrorCode::kInvalidArgument,
          "The session is of another model than the batch; a batch is for sessions of one loaded model.");
    }
    item.session->check_call(item.ids, item.which, item.logits);
  }

  // The last logits of all items together, so that the vocabulary's projection is one product.
  void give_logits_together(std::span<Item> items) {
    last.resize(items.size() * vocab);
    for (size_t i = 0; i < readings.size(); ++i) {
      if (readings[i].which == LogitsFor::kLast) readings[i].logits = last.data() + i * vocab;
    }
  }

  void finish(std::span<Item> items) {
    for (size_t i = 0; i < readings.size(); ++i) {
      const Reading& reading = readings[i];
      Item& item = items[of_reading[i]];
      item.read = reading.read;
      item.error = reading.error;
      if (item.which == LogitsFor::kLast && !item.error && item.read == item.ids.size())
        std::copy_n(reading.logits, vocab, item.logits.begin());
    }
  }

  std::shared_ptr<const Model> model;
  const size_t vocab;
  Runner runner;
  std::vector<Reading> readings;   // of the items that can be read,
  std::vector<size_t> of_reading;  // and which these are
  WipedVector<float> last;         // [items, vocab]
};

namespace {

void check_sessions(std::span<const Batch::Item> items) {
  std::vector<const Session*> sessions;
  for (const Batch::Item& item : items) sessions.push_back(item.session);
  std::ranges::sort(sessions);
  if (!sessions.empty() && sessions.front() == nullptr)
    throw Error(ErrorCode::kInvalidArgument, "A session of the batch is null.");
  if (std::ranges::adjacent_find(sessions) != sessions.end())
    throw Error(ErrorCode::kInvalidArgument, "A session is twice in the batch.");
}

}  // namespace

Batch::Batch(std::shared_ptr<const Model> model, const SessionOptions& options) {
  if (model == nullptr) throw Error(ErrorCode::kInvalidArgument, "A batch needs a model.");
  try {
    impl_ = std::make_unique<Impl>(std::move(model), options);
  } catch (const std::bad_alloc&) {
    throw Error(ErrorCode::kOutOfMemory, "There is not enough memory for a batch of this model's sessions.");
  }
}

Batch::~Batch() = default;

void Batch::forward(std::span<Item> items) {
  check_sessions(items);
  impl_->readings.clear();
  impl_->of_reading.clear();
  for (Item& item : items) {
    item.read = 0;
    item.error.reset();
    try {
      impl_->check(item);
    } catch (const Error& error) {
      item.error = error;
      continue;
    }
    impl_->readings.push_back({.session = &item.session->own_state(),
                               .ids = item.ids,
                               .which = item.which,
                               .logits = item.logits.data(),
                               .go_on = item.go_on});
    impl_->of_reading.push_back(static_cast<size_t>(&item - items.data()));
  }
  impl_->give_logits_together(items);
  // Also when something is thrown, which may have a cleanup of its own (a thread that ends): no catch.
  const struct Finish {
    Impl& impl;
    std::span<Item> items;
    ~Finish() { impl.finish(items); }
  } at_the_end{*impl_, items};
  impl_->runner.read(impl_->readings);
}

void Batch::wipe() {
  impl_->runner.wipe();
  wipe_memory(std::as_writable_bytes(std::span(impl_->last)));
  wipe_stack();
}

size_t Batch::total_bytes() const { return impl_->runner.bytes() + impl_->last.capacity() * sizeof(float); }

int Batch::threads() const { return impl_->runner.threads(); }

const Model& Batch::model() const { return *impl_->model; }

}  // namespace allmem
