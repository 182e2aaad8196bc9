// In which order steps run, and which of them threads go through without waiting for each other in between: a
// wait costs microseconds, and what a thread has just written is in its own cache.
#include <algorithm>
#include <array>

#include "graph/lower.h"
#include "platform/error.h"
#include "platform/thread_pool.h"

namespace allmem {

namespace {

// How many steps ahead one may be brought forward: about a layer's, so that not everything lives at once.
constexpr size_t kReach = 24;

constexpr size_t kMostSideBySide = 8;
constexpr size_t kManyRows = 8;  // from here on threads take rows each

bool row_aligned(const Program& program, const std::vector<ValueId>& ids) {
  return std::all_of(ids.begin(), ids.end(), [&](ValueId id) {
    return id == kNoValue || !has_tokens(program.values[id].shape) || token_major(program.values[id].shape);
  });
}

// Puts steps in a new order, stage by stage.
class Stages {
 public:
  explicit Stages(Program& program)
      : program_(program), old_(std::move(program.steps)), made_(program.buffers.size(), 0) {
    program_.steps.clear();
    for (const Step& step : old_) set_made(step, kNotYet);
  }

  void form() {
    for (size_t i = 0; i < old_.size(); ++i) {
      if (old_[i].op == nullptr) continue;  // brought forward
      if (kind_of(old_[i]) == Stage::Kind::kSideBySide) form_rows_before(i);
      form_from(i);
    }
  }

 private:
  static constexpr size_t kNotYet = ~size_t{0};

  // The stage that begins with step i.
  void form_from(size_t i) {
    Stage stage{.kind = kind_of(old_[i]), .begin = program_.steps.size(), .end = 0};
    const bool head = old_[i].head;
    place(i);
    for (size_t j = i + 1; stage.kind != Stage::Kind::kStep && j < std::min(old_.size(), i + kReach); ++j) {
      if (stage.kind == Stage::Kind::kSideBySide && program_.steps.size() - stage.begin == kMostSideBySide)
        break;
      if (fits(j, head, stage)) place(j);
    }
    stage.end = program_.steps.size();
    if (stage.end - stage.begin == 1) stage.kind = Stage::Kind::kStep;
    program_.stages.push_back(stage);
  }

  // Row-wise steps that need not wait for the loop i: what they lead to may then go beside it.
  void form_rows_before(size_t i) {
    for (size_t j = i + 1; j < std::min(old_.size(), i + kReach); ++j) {
      if (fits(j, old_[i].head, {.kind = Stage::Kind::kRows})) return form_from(j);
    }
  }

  // Whether the step can be brought forward into the stage.
  bool fits(size_t j, bool head, const Stage& stage) const {
    return old_[j].op != nullptr && old_[j].head == head && kind_of(old_[j]) == stage.kind &&
           is_ready(old_[j], stage);
  }

  Stage::Kind kind_of(const Step& step) const {
    if (step.op->as_loop() != nullptr) return Stage::Kind::kSideBySide;
    const bool rows =
        step.row_wise && row_aligned(program_, step.inputs) && row_aligned(program_, step.outputs);
    return rows ? Stage::Kind::kRows : Stage::Kind::kStep;
  }

  // Whether all that the step reads is there: before the stage, or before the step for a thread's own rows.
  bool is_ready(const Step& step, const Stage& stage) const {
    return std::all_of(step.inputs.begin(), step.inputs.end(), [&](ValueId id) {
      if (id == kNoValue) return true;
      const size_t made = made_[program_.values[id].buffer];
      return stage.kind == Stage::Kind::kRows ? made != kNotYet : made <= stage.begin;
    });
  }

  void place(size_t i) {
    program_.steps.push_back(std::move(old_[i]));
    set_made(program_.steps.back(), program_.steps.size());
  }

  // What is no activation (constants, states, ids) is always there.
  void set_made(const Step& step, size_t after) {
    for (const ValueId id : step.outputs) {
      if (id == kNoValue) continue;
      const uint32_t buffer = program_.values[id].buffer;
      const Buffer::Home home = program_.buffers[buffer].home;
      if (home == Buffer::Home::kArena || home == Buffer::Home::kLogits) made_[buffer] = after;
    }
  }

  Program& program_;
  std::vector<Step> old_;
  std::vector<size_t> made_;  // steps after which a buffer is there
};

// The items of a loop; of one that runs for each session by itself those of all sessions, one after the
// other.
Loop::Items items_of(const RunContext& ctx) {
  const Loop& loop = *ctx.step->op->as_loop();
  if (!ctx.step->by_session) return loop.items(ctx);
  Loop::Items all{};
  size_t work = 0;
  for (const Segment& segment : ctx.segments) {
    const Loop::Items own = loop.items(ctx.of(segment));
    all.count += own.count;
    all.grain = own.grain;
    work += own.count * own.work;
  }
  all.work = work / all.count;
  return all;
}

// Runs some of these items, which are `count` in all.
void run_items_of(const RunContext& ctx, size_t count, size_t begin, size_t end, size_t worker) {
  const Loop& loop = *ctx.step->op->as_loop();
  if (!ctx.step->by_session) return loop.run_items(ctx, begin, end, worker);
  const size_t each = count / ctx.segments.size();
  while (begin < end) {
    const size_t session = begin / each, first = session * each, to = std::min(end, first + each);
    loop.run_items(ctx.of(ctx.segments[session]), begin - first, to - first, worker);
    begin = to;
  }
}

// Each thread goes on with the next items, of whichever loop.
void run_side_by_side(const Stage& stage, const RunContext& ctx) {
  struct Part {
    const Step* step;
    Loop::Items items;
    size_t work() const { return items.count * items.work; }
  };
  std::array<Part, kMostSideBySide> parts{};
  size_t count = 0, items = 0, grain = 1, work = 0;
  RunContext own = ctx;
  for (size_t i = stage.begin; i < stage.end; ++i) {
    own.step = &ctx.program.steps[i];
    const Part part{own.step, items_of(own)};
    // The small ones first: what is begun last should not take long.
    size_t place = count++;
    for (; place > 0 && parts[place - 1].work() > part.work(); --place) parts[place] = parts[place - 1];
    parts[place] = part;
    items += part.items.count;
    work += part.work();
    grain = std::max(grain, part.items.grain);
  }
  const auto run = [&](size_t begin, size_t end, size_t worker) {
    RunContext own = ctx;
    size_t first = 0;
    for (size_t i = 0; i < count; first += parts[i++].items.count) {
      const size_t from = std::max(begin, first), to = std::min(end, first + parts[i].items.count);
      if (from >= to) continue;
      own.step = parts[i].step;
      run_items_of(own, parts[i].items.count, from - first, to - first, worker);
    }
  };
  if (work < kWorthSharing) return run(0, items, 0);
  ctx.pool.parallel(items, grain, run);
}

// Each thread takes some rows through all steps, which they do not leave its cache for.
void run_rows(const Stage& stage, const RunContext& ctx) {
  ctx.pool.parallel(ctx.tokens, 1, [&](size_t begin, size_t end, size_t worker) {
    ThreadPool alone(1);
    RunContext own{.kernels = ctx.kernels, .pool = alone, .program = ctx.program};
    own.tokens = end - begin;
    own.skipped = ctx.skipped;
    own.first = begin;
    own.operands = ctx.operands;
    own.homes = ctx.homes;
    own.scratch_data = ctx.scratch(worker);
    for (size_t i = stage.begin; i < stage.end; ++i) {
      own.step = &ctx.program.steps[i];
      own.step->op->run(own);
    }
  });
}

}  // namespace

// Walks back from the logits: a step whose rows are needed by nothing but other such steps is the head, and
// goes last.
void mark_head(Program& program) {
  std::vector<bool> all_rows(program.buffers.size(), false);
  for (size_t i = program.steps.size(); i-- > 0;) {
    Step& step = program.steps[i];
    const auto wanted_whole = [&](ValueId id) {
      return id != kNoValue && (all_rows[program.values[id].buffer] || !has_tokens(program.values[id].shape));
    };
    step.head = step.row_wise && row_aligned(program, step.inputs) && row_aligned(program, step.outputs) &&
                std::none_of(step.outputs.begin(), step.outputs.end(), wanted_whole);
    for (const ValueId id : step.outputs) {
      if (id != kNoValue) program.buffers[program.values[id].buffer].head = step.head;
    }
    if (step.head) continue;
    for (const ValueId id : step.inputs) {
      if (id != kNoValue) all_rows[program.values[id].buffer] = true;
    }
  }
  if (!program.buffers[program.values[program.logits].buffer].head) {
    throw Error(ErrorCode::kUnsupported,
                program.source->path +
                    ": the logits are not computed row by row (one row from each token's "
                    "own values), which this runtime needs.");
  }
  std::stable_partition(program.steps.begin(), program.steps.end(),
                        [](const Step& step) { return !step.head; });
}

namespace {

// Whether the step gives each token the same whatever other sessions' tokens are in the block.
bool keeps_sessions_apart(const Program& program, const Step& step) {
  if (step.may_throw || !row_aligned(program, step.inputs) || !row_aligned(program, step.outputs))
    return false;
  if (step.by_session) return true;
  return step.row_wise && std::all_of(step.inputs.begin(), step.inputs.end(), [&](ValueId id) {
           if (id == kNoValue || has_tokens(program.values[id].shape)) return true;
           return program.buffers[program.values[id].buffer].home ==
                  Home::kConstant;  // and not of one session
         });
}

}  // namespace

void form_stages(Program& program) {
  Stages(program).form();
  const auto in_head = [&](const Stage& stage) { return program.steps[stage.begin].head; };
  program.head_stages =
      static_cast<size_t>(std::count_if(program.stages.begin(), program.stages.end(), in_head));
  program.shares_blocks = std::all_of(program.steps.begin(), program.steps.end(),
                                      [&](const Step& step) { return keeps_sessions_apart(program, step); });
}

namespace {

// Weights have gone through the caches since these were needed last: all at once instead of one after the
// other.
void fetch(const Stage& stage, const RunContext& ctx) {
#if defined(__GNUC__)
  const Step* steps = ctx.program.steps.data();
  for (size_t i = stage.begin; i < stage.end; ++i) {
    __builtin_prefetch(steps[i].op.get());
    __builtin_prefetch(reinterpret_cast<const std::byte*>(steps[i].op.get()) + kAlignment);
    const size_t count = steps[i].inputs.size() + steps[i].outputs.size();
    for (size_t j = 0; j < count; j += 2) __builtin_prefetch(ctx.operands + steps[i].first_operand + j);
  }
#endif
}

}  // namespace

void run_stage(const Stage& stage, const RunContext& ctx) {
  fetch(stage, ctx);
  const Step& first = ctx.program.steps[stage.begin];
  const bool shares_items = first.by_session && first.op->as_loop() != nullptr;
  if (stage.kind == Stage::Kind::kSideBySide || shares_items) return run_side_by_side(stage, ctx);
  if (stage.kind == Stage::Kind::kRows && ctx.tokens >= kManyRows) return run_rows(stage, ctx);
  RunContext own = ctx;
  for (size_t i = stage.begin; i < stage.end; ++i) {
    own.step = &ctx.program.steps[i];
    if (!own.step->by_session) {
      own.step->op->run(own);
      continue;
    }
    for (const Segment& segment : ctx.segments) own.step->op->run(own.of(segment));
  }
}

}  // namespace allmem
