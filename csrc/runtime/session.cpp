// A session: memory of fixed size, and the loop that runs a program over blocks of tokens.
#include "runtime/session.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <new>
#include <system_error>
#include <vector>

#include "kernels/kernels.h"
#include "platform/aligned_buffer.h"
#include "platform/error.h"
#include "platform/fast_cores.h"
#include "platform/page_buffer.h"
#include "platform/physical_memory.h"
#include "platform/printable.h"
#include "platform/shared_threads.h"
#include "platform/wipe.h"
#include "runtime/state_values.h"

namespace allmem {

namespace {

using Home = Buffer::Home;

int thread_count(int wanted) {
  if (wanted < 0 || wanted > ThreadPool::kMaxThreads) {
    throw Error(ErrorCode::kInvalidArgument, "A session has 1 to " + std::to_string(ThreadPool::kMaxThreads) +
                                                 " threads (0: one for each fast core), not " +
                                                 std::to_string(wanted) + ".");
  }
  if (wanted > 0) return wanted;
  return std::min(fast_cores(), ThreadPool::kMaxThreads);
}

}  // namespace

namespace {

// Zeros cost nothing until they are written, so the system would promise more memory than there is.
void check_size(const Model& model) {
  const size_t needed = model.program().state_bytes, there = physical_memory();
  if (there == 0 || needed <= there) return;
  throw Error(ErrorCode::kOutOfMemory, "A session of this model needs " + std::to_string(needed >> 20) +
                                           " MiB for its state, but this machine has " +
                                           std::to_string(there >> 20) +
                                           " MiB of memory; load the model with a shorter window (" +
                                           std::to_string(model.info().window) + " tokens now).");
}

Error threads_error(int threads, const std::system_error& error) {
  // Too many threads, or too little memory for their stacks: the system gives one error for both.
  return Error(ErrorCode::kOutOfMemory, "The session's " + std::to_string(threads) +
                                            " threads cannot be started: " + error.what() + ".");
}

}  // namespace

struct Session::Impl {
  std::shared_ptr<const Model> model;
  const Program& program;
  const Kernels& kernels;
  const SessionOptions options;
  const int threads;
  std::shared_ptr<SharedThreads> shared;  // null for a session that waits for nobody, as it has
  ThreadPool own;                         // one thread, or a host's
  PageBuffer state, derived, arena, scratch;
  std::vector<int64_t> block_ids;       // [block]
  int64_t block_position = 0;           // the graph's input `position`
  std::vector<Operand> operands;        // of all steps of the program
  std::vector<size_t> logits_operands;  // those that are the logits, which the caller has room for
  uint64_t position = 0;
  bool is_frozen = false;
  bool is_fresh = true;  // the state was set from outside since the last step
  bool is_poisoned = false;

  Impl(std::shared_ptr<const Model> the_model, const SessionOptions& wanted)
      : model(std::move(the_model)),
        program(model->program()),
        kernels(*program.kernels),
        options(wanted),
        threads(thread_count(options.threads)),
        own(options.run_tasks ? threads : 1, options.run_tasks),
        state(program.state_bytes),
        derived(program.derived_bytes),
        arena(program.arena_bytes),
        scratch(program.scratch_floats * sizeof(float) * static_cast<size_t>(threads)),
        block_ids(program.block) {
    find_operands();
    copy_initial_weights();
    is_frozen = model->info().memory == MemoryUse::kFrozen;
    if (threads > 1 && !options.run_tasks) {
      shared = SharedThreads::of_process();
      shared->lease(threads);  // a system that has not as many says so now
    }
  }

  void find_operands() {
    std::vector<std::byte*> addresses;
    for (const Buffer& buffer : program.buffers) addresses.push_back(address(buffer));
    for (const Step& step : program.steps) {
      add_operands(program, step, addresses, operands);
      size_t i = step.first_operand;
      for (const auto* ids : {&step.inputs, &step.outputs}) {
        for (const ValueId id : *ids) {
          if (id != kNoValue && program.buffers[program.values[id].buffer].home == Home::kLogits)
            logits_operands.push_back(i);
          ++i;
        }
      }
    }
  }

  std::byte* address(const Buffer& buffer) {
    switch (buffer.home) {
      case Home::kConstant:
        return const_cast<std::byte*>(buffer.constant);  // operators only read their inputs
      case Home::kArena:
        return arena.data() + buffer.offset;
      case Home::kState:
        return state.data() + buffer.offset;
      case Home::kIds:
        return reinterpret_cast<std::byte*>(block_ids.data());
      case Home::kPosition:
        return reinterpret_cast<std::byte*>(&block_position);
      case Home::kLogits:
        return nullptr;  // the caller's, known in forward()
    }
    return nullptr;
  }

  // Into a state of zeros, as a new one is: the window's pages stay untouched until there is something in
  // them.
  void copy_initial_weights() {
    for (const State& part : program.states) {
      if (part.form == StateForm::kFloat32 && !part.initial.empty())
        std::memcpy(state.data() + part.offset, part.initial.data(), part.bytes);
    }
  }

  void set_initial_state() {
    if (state.size() > 0) std::memset(state.data(), 0, state.size());  // also what lies between the parts
    copy_initial_weights();
    position = 0;
    is_fresh = true;
    is_poisoned = false;
  }

  void check_usable() const {
    if (is_poisoned) {
      throw Error(ErrorCode::kPoisoned,
                  "An earlier error interrupted this session; reset it before using it again.");
    }
  }

  void check_arguments(std::span<const int32_t> ids, size_t rows, std::span<const float> logits) const {
    const auto vocab = static_cast<size_t>(program.vocab_size);
    check_ids(ids, vocab);
    if (logits.size() / vocab < rows) {
      throw Error(ErrorCode::kInvalidArgument,
                  "The logits need room for " + std::to_string(rows) + " rows of " + std::to_string(vocab) +
                      " values, but have " + std::to_string(logits.size()) + " values.");
    }
    if (ids.size() > kMaxPosition - position) {
      throw Error(ErrorCode::kInvalidArgument, "A session reads at most 2^53 tokens.");
    }
  }

  // Calls `run` with a pool of this session's size: its own, or of the threads that all sessions share, so
  // that they take turns.
  template <class Run>
  void with_threads(const Run& run) {
    if (shared == nullptr) return run(own);
    try {
      const SharedThreads::Lease lease = shared->lease(threads);
      run(lease.pool());
    } catch (const std::system_error& error) {
      throw threads_error(threads, error);
    }
  }

  RunContext context(ThreadPool& pool) {
    RunContext ctx{.kernels = kernels, .pool = pool, .program = program};
    ctx.position = position;
    ctx.frozen = is_frozen;
    ctx.fresh = is_fresh;
    ctx.operands = operands.data();
    ctx.derived_data = derived.data();
    ctx.scratch_data = reinterpret_cast<float*>(scratch.data());
    return ctx;
  }

  // What is pending in the states becomes part of them.
  void settle() {
    is_poisoned = true;  // until it is done
    with_threads([&](ThreadPool& pool) {
      RunContext ctx = context(pool);
      for (const Step& step : program.steps) {
        ctx.step = &step;
        step.op->settle(ctx);
      }
    });
    is_poisoned = false;
  }

  // Weights or a memory that are damaged give numbers that are none. Never lets one on to where it would be
  // taken for a wrong argument.
  void check_numbers(std::span<const float> numbers, float least) const {
    uint32_t wrong = 0;
    for (const float value : numbers)
      wrong |= !(value >= least && value < std::numeric_limits<float>::infinity());
    if (wrong == 0) return;
    throw Error(ErrorCode::kBadModel,
                "The model computed NaN or infinity within the last tokens up to " +
                    std::to_string(position) +
                    ": its weights are damaged. Compare its files with their checksums (allmem-edge verify), "
                    "and reset the session or load its last memory.");
  }

  // What the head begins with, of all tokens of the block: the last hidden states.
  void check_hidden(const Step& head, size_t tokens) {
    for (const ValueId id : head.inputs) {
      if (id == kNoValue || program.values[id].type != onnx::DataType::kFloat) continue;
      const Buffer& buffer = program.buffers[program.values[id].buffer];
      if (buffer.home != Home::kArena || buffer.token_bytes == 0) continue;
      const auto* numbers = reinterpret_cast<const float*>(address(buffer));
      check_numbers({numbers, tokens * buffer.token_bytes / sizeof(float)},
                    std::numeric_limits<float>::lowest());
    }
  }

  // Runs all steps for one block; the head only for its last `rows` tokens.
  void run_block(std::span<const int32_t> ids, size_t rows, float* logits, ThreadPool& pool) {
    std::copy(ids.begin(), ids.end(), block_ids.begin());
    block_position = static_cast<int64_t>(position);
    for (const size_t i : logits_operands) operands[i].data = reinterpret_cast<std::byte*>(logits);
    RunContext ctx = context(pool);
    bool in_head = false;
    for (const Stage& stage : program.stages) {
      const Step& first = program.steps[stage.begin];
      if (first.head && !in_head) check_hidden(first, ids.size());
      in_head = first.head;
      ctx.tokens = first.head ? rows : ids.size();
      ctx.skipped = ids.size() - ctx.tokens;
      if (ctx.tokens > 0) run_stage(stage, ctx);
    }
    position += ids.size();
    is_fresh = false;
  }

  size_t forward(std::span<const int32_t> ids, LogitsFor which, std::span<float> logits, GoOn go_on) {
    const size_t vocab = static_cast<size_t>(program.vocab_size);
    float* out = logits.data();
    return in_blocks(ids.size(), program.block, go_on, [&](size_t begin, size_t count) {
      is_poisoned = true;  // until the block is done
      const bool last = begin + count == ids.size();
      const size_t rows = which == LogitsFor::kAll ? count : which == LogitsFor::kLast && last ? 1 : 0;
      with_threads([&](ThreadPool& pool) { run_block(ids.subspan(begin, count), rows, out, pool); });
      check_numbers({out, rows * vocab}, -std::numeric_limits<float>::infinity());  // -∞: never this token
      out += rows * vocab;
      is_poisoned = false;
    });
  }
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
  const int threads = thread_count(options.threads);
  check_size(*model);
  try {
    impl_ = std::make_unique<Impl>(model, options);
  } catch (const std::bad_alloc&) {
    throw Error(ErrorCode::kOutOfMemory,
                "There is not enough memory for a session of this model, whose state alone takes " +
                    std::to_string(model->program().state_bytes) + " bytes.");
  } catch (const std::system_error& error) {
    throw threads_error(threads, error);
  }
}

Session::~Session() = default;

size_t Session::forward(std::span<const int32_t> ids, LogitsFor which, std::span<float> logits, GoOn go_on) {
  impl_->check_usable();
  const size_t rows = which == LogitsFor::kAll ? ids.size() : which == LogitsFor::kLast ? 1 : 0;
  impl_->check_arguments(ids, rows, logits);
  return impl_->forward(ids, which, logits, go_on);
}

uint64_t Session::position() const { return impl_->position; }

void Session::reset() { impl_->set_initial_state(); }

void Session::wipe() {
  for (PageBuffer* buffer : {&impl_->state, &impl_->derived, &impl_->arena, &impl_->scratch}) {
    wipe_memory({buffer->data(), buffer->size()});
  }
  wipe_memory(std::as_writable_bytes(std::span(impl_->block_ids)));
  wipe_stack();
  reset();
}

void Session::freeze(bool frozen, bool learn) {
  impl_->check_usable();
  if (!frozen && impl_->model->info().memory == MemoryUse::kFrozen) {
    throw Error(ErrorCode::kInvalidArgument,
                "The model was loaded with its memory frozen, so its sessions cannot write it; load "
                "it with its memory on.");
  }
  if (frozen && !impl_->is_frozen && learn) impl_->settle();
  impl_->is_frozen = frozen;
}

bool Session::frozen() const { return impl_->is_frozen; }

std::unique_ptr<Session> Session::clone() const {
  impl_->check_usable();
  auto copy = std::make_unique<Session>(impl_->model, impl_->options);
  copy->restore({impl_->state.data(), impl_->state.size()}, impl_->position);
  copy->impl_->is_frozen = impl_->is_frozen;
  return copy;
}

void Session::restore(std::span<const std::byte> state, uint64_t position) {
  if (state.size() != impl_->state.size() || position > kMaxPosition) {
    throw Error(ErrorCode::kInvalidArgument, "A state of " + std::to_string(state.size()) +
                                                 " bytes does not fit this session, whose state has " +
                                                 std::to_string(impl_->state.size()) + " bytes.");
  }
  restore(position, [&](std::span<std::byte> own) {  // `state` may be this session's own state_memory()
    if (!state.empty()) std::memmove(own.data(), state.data(), state.size());
  });
}

void Session::restore(uint64_t position, FunctionRef<void(std::span<std::byte>)> fill) {
  impl_->is_poisoned = true;  // until it is there
  fill({impl_->state.data(), impl_->state.size()});
  impl_->position = position;
  impl_->is_fresh = true;
  impl_->is_poisoned = false;
}

size_t Session::state_bytes() const { return impl_->state.size(); }

size_t Session::total_bytes() const {
  return impl_->state.size() + impl_->derived.size() + impl_->arena.size() + impl_->scratch.size() +
         impl_->block_ids.size() * sizeof(int64_t) + impl_->operands.size() * sizeof(Operand);
}

std::span<const std::byte> Session::state_memory() const {
  impl_->check_usable();
  return {impl_->state.data(), impl_->state.size()};
}

WipedVector<float> Session::state(size_t index) const {
  impl_->check_usable();
  if (index >= impl_->program.states.size()) {
    throw Error(ErrorCode::kInvalidArgument, "There is no state " + std::to_string(index) +
                                                 "; this model has " +
                                                 std::to_string(impl_->program.states.size()) + ".");
  }
  const State& part = impl_->program.states[index];
  if (part.form == StateForm::kOwn) {
    throw Error(ErrorCode::kUnsupported, "The state '" + printable(part.name) +
                                             "' is kept in 8 bits; load the model as exact to look at it.");
  }
  return state_values(impl_->program, part, {impl_->state.data() + part.offset, part.bytes});
}

const Model& Session::model() const { return *impl_->model; }

int Session::threads() const { return impl_->threads; }

}  // namespace allmem
