// A session: its state, and its own runner.
#include "runtime/session.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "platform/error.h"
#include "platform/physical_memory.h"
#include "platform/printable.h"
#include "platform/wipe.h"
#include "runtime/runner.h"
#include "runtime/state_values.h"

namespace allmem {

namespace {

// Zeros cost nothing until they are written, so the system would promise more memory than there is.
void check_size(const Model& model) {
  const uint64_t needed = uint64_t{model.program().state_bytes} + model.program().derived_bytes;
  const size_t there = physical_memory();
  if (there == 0 || needed <= there) return;
  throw Error(ErrorCode::kOutOfMemory, "A session of this model needs " + std::to_string(needed >> 20) +
                                           " MiB, but this machine has " + std::to_string(there >> 20) +
                                           " MiB of memory; load the model with a shorter window (" +
                                           std::to_string(model.info().window) + " tokens now).");
}

}  // namespace

struct Session::Impl {
  Impl(std::shared_ptr<const Model> of, const SessionOptions& wanted)
      : model(std::move(of)), options(wanted), state(model->program()), runner(model->program(), options) {
    state.is_frozen = model->info().memory == MemoryUse::kFrozen;
  }

  void check_usable() const {
    if (state.is_poisoned) {
      throw Error(
          ErrorCode::kPoisoned,
          "An earlier error interrupted this session; undo to a mark, load a saved memory, or reset it.");
    }
  }

  std::shared_ptr<const Model> model;
  const SessionOptions options;
  SessionState state;
  Runner runner;
};

void check_ids(std::span<const int32_t> ids, size_t vocab_size) {
  if (ids.empty()) {
    throw Error(ErrorCode::kInvalidArgument, "There are no tokens to read; give at least one id.");
  }
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || static_cast<size_t>(ids[i]) >= vocab_size) {
      throw Error(ErrorCode::kInvalidArgument,
                  "Token " + std::to_string(ids[i]) + " at index " + std::to_string(i) +
                      " is outside the model's vocabulary of " + std::to_string(vocab_size) + " tokens.");
    }
  }
}

Session::Session(std::shared_ptr<const Model> model, const SessionOptions& options) {
  if (model == nullptr) throw Error(ErrorCode::kInvalidArgument, "A session needs a model.");
  check_size(*model);
  try {
    impl_ = std::make_unique<Impl>(model, options);
  } catch (const std::bad_alloc&) {
    throw Error(ErrorCode::kOutOfMemory,
                "There is not enough memory for a session of this model, whose state alone takes " +
                    std::to_string(model->program().state_bytes) + " bytes.");
  }
}

Session::~Session() = default;

SessionState& Session::own_state() { return impl_->state; }

void Session::check_call(std::span<const int32_t> ids, LogitsFor which, std::span<const float> logits) const {
  impl_->check_usable();
  const auto vocab = static_cast<size_t>(impl_->model->program().vocab_size);
  check_ids(ids, vocab);
  const size_t rows = which == LogitsFor::kAll ? ids.size() : which == LogitsFor::kLast ? 1 : 0;
  if (logits.size() / vocab < rows) {
    throw Error(ErrorCode::kInvalidArgument, "The logits need room for " + std::to_string(rows) +
                                                 " rows of " + std::to_string(vocab) + " values, but have " +
                                                 std::to_string(logits.size()) + " values.");
  }
  if (ids.size() > kMaxPosition - impl_->state.position) {
    throw Error(ErrorCode::kInvalidArgument, "A session reads at most 2^53 tokens.");
  }
}

size_t Session::forward(std::span<const int32_t> ids, LogitsFor which, std::span<float> logits, GoOn go_on) {
  check_call(ids, which, logits);
  Reading reading{
      .session = &impl_->state, .ids = ids, .which = which, .logits = logits.data(), .go_on = go_on};
  impl_->runner.read({&reading, 1});
  if (reading.error) throw Error(*reading.error);
  return reading.read;
}

size_t Session::most_speculative() {
  impl_->check_usable();
  return impl_->runner.most_speculative(impl_->state);
}

size_t Session::speculate(std::span<const int32_t> ids, std::span<float> logits,
                          FunctionRef<size_t()> accept) {
  check_call(ids, LogitsFor::kAll, logits);
  if (const size_t most = most_speculative(); ids.size() > most) {
    throw Error(ErrorCode::kInvalidArgument, "Of " + std::to_string(ids.size()) +
                                                 " tokens some could not be taken back; " +
                                                 std::to_string(most) + " can be tried now.");
  }
  Reading reading{.session = &impl_->state,
                  .ids = ids,
                  .which = LogitsFor::kAll,
                  .logits = logits.data(),
                  .speculative = ids.size() > 1};
  impl_->runner.read({&reading, 1});
  if (reading.error) throw Error(*reading.error);
  impl_->state.is_poisoned = true;  // until only what is right has been read
  const size_t right = std::clamp<size_t>(accept(), 1, ids.size());
  if (right < ids.size()) impl_->runner.take_back(impl_->state, ids.size(), ids.size() - right);
  impl_->state.is_poisoned = false;
  return right;
}

uint64_t Session::position() const { return impl_->state.position; }

void Session::reset() { impl_->state.reset(); }

void Session::wipe() {
  for (PageBuffer* buffer : {&impl_->state.bytes, &impl_->state.derived})
    wipe_memory({buffer->data(), buffer->size()});
  impl_->runner.wipe();
  wipe_stack();
  reset();
}

void Session::freeze(bool frozen, bool learn) {
  if (!frozen && impl_->model->info().memory == MemoryUse::kFrozen) {
    throw Error(ErrorCode::kInvalidArgument,
                "The model was loaded with its memory frozen, so its sessions cannot write it; load "
                "it with its memory on.");
  }
  const bool is_usable = !impl_->state.is_poisoned;
  if (frozen && !impl_->state.is_frozen && learn && is_usable) impl_->runner.settle(impl_->state);
  impl_->state.is_frozen = frozen;
}

bool Session::frozen() const { return impl_->state.is_frozen; }

std::unique_ptr<Session> Session::clone() const {
  impl_->check_usable();
  auto copy = std::make_unique<Session>(impl_->model, impl_->options);
  copy->restore({impl_->state.bytes.data(), impl_->state.bytes.size()}, impl_->state.position);
  copy->impl_->state.is_frozen = impl_->state.is_frozen;
  return copy;
}

void Session::restore(std::span<const std::byte> state, uint64_t position) {
  if (state.size() != impl_->state.bytes.size() || position > kMaxPosition) {
    throw Error(ErrorCode::kInvalidArgument, "A state of " + std::to_string(state.size()) +
                                                 " bytes does not fit this session, whose state has " +
                                                 std::to_string(impl_->state.bytes.size()) + " bytes.");
  }
  restore(position, [&](std::span<std::byte> own) {  // `state` may be this session's own state_memory()
    if (!state.empty()) std::memmove(own.data(), state.data(), state.size());
  });
}

void Session::restore(uint64_t position, FunctionRef<void(std::span<std::byte>)> fill) {
  impl_->state.is_poisoned = true;  // until it is there
  fill({impl_->state.bytes.data(), impl_->state.bytes.size()});
  impl_->state.position = position;
  impl_->state.is_fresh = true;
  impl_->state.is_poisoned = false;
}

size_t Session::state_bytes() const { return impl_->state.bytes.size(); }

size_t Session::total_bytes() const {
  return impl_->state.bytes.size() + impl_->state.derived.size() + impl_->runner.bytes();
}

std::span<const std::byte> Session::state_memory() const {
  impl_->check_usable();
  return {impl_->state.bytes.data(), impl_->state.bytes.size()};
}

WipedVector<float> Session::state(size_t index) const {
  impl_->check_usable();
  if (index >= impl_->state.program.states.size()) {
    throw Error(ErrorCode::kInvalidArgument, "There is no state " + std::to_string(index) +
                                                 "; this model has " +
                                                 std::to_string(impl_->state.program.states.size()) + ".");
  }
  const State& part = impl_->state.program.states[index];
  if (part.form == StateForm::kOwn) {
    throw Error(ErrorCode::kUnsupported, "The state '" + printable(part.name) +
                                             "' is kept in 8 bits; load the model as exact to look at it.");
  }
  return state_values(impl_->state.program, part, {impl_->state.bytes.data() + part.offset, part.bytes});
}

const Model& Session::model() const { return *impl_->model; }

int Session::threads() const { return impl_->runner.threads(); }

}  // namespace allmem
