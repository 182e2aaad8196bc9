// The loop over blocks of tokens, and one block: all steps for its tokens, the head for those whose logits
// are asked for.
#include "runtime/runner.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <new>
#include <system_error>

#include "kernels/kernels.h"
#include "platform/fast_cores.h"
#include "platform/wipe.h"

namespace allmem {

namespace {

int thread_count(int wanted) {
  if (wanted < 0 || wanted > ThreadPool::kMaxThreads) {
    throw Error(ErrorCode::kInvalidArgument, "A session has 1 to " + std::to_string(ThreadPool::kMaxThreads) +
                                                 " threads (0: one for each fast core), not " +
                                                 std::to_string(wanted) + ".");
  }
  if (wanted > 0) return wanted;
  return std::min(fast_cores(), ThreadPool::kMaxThreads);
}

// Of all threads. Throws std::bad_alloc where no size_t counts them.
size_t scratch_bytes(const Program& program, int threads) {
  const uint64_t bytes = uint64_t{program.scratch_floats} * sizeof(float) * static_cast<uint64_t>(threads);
  if (bytes > std::numeric_limits<size_t>::max()) throw std::bad_alloc();
  return static_cast<size_t>(bytes);
}

// How many of `count` tokens, the next of the reading, are asked for their logits; these are the last ones.
size_t rows_of(const Reading& reading, size_t count) {
  switch (reading.which) {
    case LogitsFor::kNone:
      return 0;
    case LogitsFor::kLast:
      return reading.read + count == reading.ids.size() ? 1 : 0;
    case LogitsFor::kAll:
      return count;
  }
  return 0;
}

// Where these logits go.
float* logits_of(const Reading& reading, size_t vocab) {
  return reading.logits + (reading.which == LogitsFor::kAll ? reading.read * vocab : 0);
}

// Weights or a memory that are damaged give numbers that are none. Never lets one on to where it would be
// taken for a wrong argument.
bool are_numbers(std::span<const float> values, float least) {
  uint32_t wrong = 0;
  for (const float value : values)
    wrong |= !(value >= least && value < std::numeric_limits<float>::infinity());
  return wrong == 0;
}

Error no_numbers(const Segment& segment) {
  return {ErrorCode::kBadModel,
          "The model computed NaN or infinity within the last tokens up to " +
              std::to_string(segment.position + segment.tokens) +
              ": its weights are damaged. Compare its files with their checksums (allmem-edge verify), "
              "and reset the session or load its last memory."};
}

}  // namespace

SessionState::SessionState(const Program& of)
    : program(of), bytes(program.state_bytes), derived(program.derived_bytes) {
  copy_initial_weights();
}

// Into a state of zeros, as a new one is: the window's pages stay untouched until there is something in them.
void SessionState::copy_initial_weights() {
  for (const State& part : program.states) {
    if (part.form == StateForm::kFloat32 && !part.initial.empty())
      std::memcpy(bytes.data() + part.offset, part.initial.data(), part.bytes);
  }
}

void SessionState::reset() {
  bytes.clear();  // also what lies between the parts
  copy_initial_weights();
  position = 0;
  is_fresh = true;
  is_poisoned = false;
}

Runner::Runner(const Program& program, const SessionOptions& options)
    : program_(program),
      threads_(thread_count(options.threads)),
      has_host_threads_(options.run_tasks != nullptr),
      own_(has_host_threads_ ? threads_ : 1, options.run_tasks),
      arena_(program.arena_bytes),
      scratch_(scratch_bytes(program, threads_)),
      ids_(program.block) {
  segments_.reserve(1);
  of_segment_.reserve(1);
  if (threads_ == 1 || has_host_threads_) return;
  shared_ = SharedThreads::of_process();
  with_threads([](ThreadPool&) {});  // a system that has not as many says so now
}

// Calls `run` with a pool of this size: its own, or of the threads that all sessions share, so that they take
// turns.
template <class Run>
void Runner::with_threads(const Run& run) {
  if (shared_ == nullptr) return run(own_);
  try {
    const SharedThreads::Lease lease = shared_->lease(threads_);
    run(lease.pool());
  } catch (const std::system_error& error) {
    // Too many threads, or too little memory for their stacks: the system gives one error for both.
    throw Error(ErrorCode::kOutOfMemory,
                std::to_string(threads_) + " threads cannot be started: " + error.what() + ".");
  }
}

RunContext Runner::context(ThreadPool& pool) {
  RunContext ctx{.kernels = *program_.kernels, .pool = pool, .program = program_};
  ctx.segments = segments_;
  ctx.operands = program_.operands.data();
  const auto home = [&](Home of) -> std::byte*& { return ctx.homes[static_cast<size_t>(of)]; };
  home(Home::kArena) = arena_.data();
  home(Home::kIds) = reinterpret_cast<std::byte*>(ids_.data());
  // The graph's input: read only where a block has tokens of one session (Program::shares_blocks).
  home(Home::kPosition) = reinterpret_cast<std::byte*>(&segments_.front().position);
  ctx.scratch_data = reinterpret_cast<float*>(scratch_.data());
  return ctx;
}

void Runner::read(std::span<Reading> readings) {
  while (fill_block(readings)) {
    try {
      with_threads([&](ThreadPool& pool) { run_block(pool); });
    } catch (const Error& error) {
      if (of_segment_.size() > 1) throw;
      of_segment_.front()->error = error;
    }
    end_block();
  }
}

// With the next tokens of each in turn, as long as there is room; false when there are none. Only who has
// read a block before is asked whether to go on.
bool Runner::fill_block(std::span<Reading> readings) {
  segments_.clear();
  of_segment_.clear();
  tokens_ = 0;
  for (Reading& reading : readings) {
    if (tokens_ == program_.block || (tokens_ > 0 && !program_.shares_blocks)) break;
    if (reading.error) continue;
    if (reading.read > 0 && reading.read < reading.ids.size() && !reading.go_on(reading.read))
      reading.ids = reading.ids.first(reading.read);
    const size_t count = std::min(reading.ids.size() - reading.read, program_.block - tokens_);
    if (count == 0) continue;
    std::ranges::copy(reading.ids.subspan(reading.read, count),
                      ids_.begin() + static_cast<ptrdiff_t>(tokens_));
    SessionState& session = *reading.session;
    segments_.push_back({.begin = tokens_,
                         .tokens = count,
                         .position = session.position,
                         .frozen = session.is_frozen,
                         .fresh = session.is_fresh,
                         .speculative = reading.speculative,
                         .state = session.bytes.data(),
                         .derived = session.derived.data()});
    of_segment_.push_back(&reading);
    tokens_ += count;
  }
  return tokens_ > 0;
}

void Runner::run_block(ThreadPool& pool) {
  for (Reading* reading : of_segment_) reading->session->is_poisoned = true;  // until the block is done
  RunContext ctx = context(pool);
  ctx.tokens = tokens_;
  const auto body = std::span(program_.stages).first(program_.stages.size() - program_.head_stages);
  for (const Stage& stage : body) run_stage(stage, ctx);
  check_hidden(program_.steps[program_.stages[body.size()].begin]);
  run_head(ctx);
}

// What the head begins with, of all tokens of the block: the last hidden states.
void Runner::check_hidden(const Step& head) {
  for (const ValueId id : head.inputs) {
    if (id == kNoValue || program_.values[id].type != onnx::DataType::kFloat) continue;
    const Buffer& buffer = program_.buffers[program_.values[id].buffer];
    if (buffer.home != Home::kArena || buffer.token_bytes == 0) continue;
    const auto* numbers = reinterpret_cast<const float*>(arena_.data() + buffer.offset);
    const size_t width = buffer.token_bytes / sizeof(float);
    for (size_t i = 0; i < segments_.size(); ++i) {
      const Segment& segment = segments_[i];
      const std::span own(numbers + segment.begin * width, segment.tokens * width);
      if (!are_numbers(own, std::numeric_limits<float>::lowest()))
        of_segment_[i]->error = no_numbers(segment);
    }
  }
}

// For the rows that are asked for: at once where they follow each other, and where their logits do.
void Runner::run_head(RunContext ctx) {
  const auto vocab = static_cast<size_t>(program_.vocab_size);
  const auto head = std::span(program_.stages).last(program_.head_stages);
  size_t begin = 0, count = 0;
  float* logits = nullptr;
  const auto run = [&] {
    if (count == 0) return;
    ctx.skipped = begin;
    ctx.tokens = count;
    ctx.homes[static_cast<size_t>(Home::kLogits)] = reinterpret_cast<std::byte*>(logits);
    for (const Stage& stage : head) run_stage(stage, ctx);
  };
  for (size_t i = 0; i < segments_.size(); ++i) {
    const Segment& segment = segments_[i];
    const Reading& reading = *of_segment_[i];
    const size_t rows = reading.error ? 0 : rows_of(reading, segment.tokens);
    if (rows == 0) continue;
    const size_t first = segment.begin + segment.tokens - rows;
    float* const to = logits_of(reading, vocab);
    if (count == 0 || first != begin + count || to != logits + count * vocab) {
      run();
      begin = first;
      count = 0;
      logits = to;
    }
    count += rows;
  }
  run();
}

void Runner::end_block() {
  const auto vocab = static_cast<size_t>(program_.vocab_size);
  for (size_t i = 0; i < segments_.size(); ++i) {
    Reading& reading = *of_segment_[i];
    const size_t rows = rows_of(reading, segments_[i].tokens);
    const std::span logits(logits_of(reading, vocab), rows * vocab);
    const float least = -std::numeric_limits<float>::infinity();  // -∞: never this token
    if (!reading.error && !are_numbers(logits, least)) reading.error = no_numbers(segments_[i]);
    if (reading.error) continue;
    reading.read += segments_[i].tokens;
    reading.session->position += segments_[i].tokens;
    reading.session->is_fresh = false;
    reading.session->is_poisoned = false;
  }
}

// For what operators do between two readings: the session's tokens from `position` on, whose step is not set.
RunContext Runner::context_of(SessionState& session, ThreadPool& pool, uint64_t position, size_t tokens) {
  segments_.assign({{.tokens = tokens,
                     .position = position,
                     .frozen = session.is_frozen,
                     .fresh = session.is_fresh,
                     .state = session.bytes.data(),
                     .derived = session.derived.data()}});
  return context(pool).of(segments_.front());
}

size_t Runner::most_speculative(SessionState& session) {
  size_t most = program_.shares_blocks ? program_.block : 1;
  RunContext ctx = context_of(session, own_, session.position, 0);
  for (const Step& step : program_.steps) {
    if (most == 1) break;
    ctx.step = &step;
    most = std::min(most, step.op->most_speculative(ctx));
  }
  return most;
}

void Runner::take_back(SessionState& session, size_t read, size_t count) {
  session.position -= count;
  RunContext ctx = context_of(session, own_, session.position + count - read, read);
  for (const Step& step : program_.steps) {
    ctx.step = &step;
    step.op->take_back(ctx, count);
  }
}

void Runner::settle(SessionState& session) {
  with_threads([&](ThreadPool& pool) {
    session.is_poisoned = true;  // until it is done
    RunContext ctx = context_of(session, pool, session.position, 0);
    for (const Step& step : program_.steps) {
      ctx.step = &step;
      step.op->settle(ctx);
    }
    session.is_poisoned = false;
  });
}

void Runner::wipe() {
  for (PageBuffer* buffer : {&arena_, &scratch_}) wipe_memory({buffer->data(), buffer->size()});
  wipe_memory(std::as_writable_bytes(std::span(ids_)));
}

size_t Runner::bytes() const { return arena_.size() + scratch_.size() + ids_.size() * sizeof(int64_t); }

}  // namespace allmem
