// How many tokens a block has, and where every activation lies.
#include <algorithm>
#include <map>

#include "graph/lower.h"
#include "platform/error.h"

namespace allmem {

namespace {

using Home = Buffer::Home;

constexpr size_t kGoodArenaBytes = size_t{128} << 20;  // a model too wide for that gets smaller blocks
constexpr uint64_t kMaxArenaGiB = kWideAddresses ? 4 : 1;

// Free memory of the arena, by offset; first fit.
class Arena {
 public:
  uint64_t take(uint64_t size) {
    for (auto gap = gaps_.begin(); gap != gaps_.end(); ++gap) {
      if (gap->second < size) continue;
      const auto [offset, space] = *gap;
      gaps_.erase(gap);
      if (space > size) gaps_.emplace(offset + size, space - size);
      return offset;
    }
    const uint64_t offset = end_;
    end_ += size;
    return offset;
  }

  void give(uint64_t offset, uint64_t size) {
    const auto gap = gaps_.emplace(offset, size).first;
    const auto next = std::next(gap);
    if (next != gaps_.end() && gap->first + gap->second == next->first) {
      gap->second += next->second;
      gaps_.erase(next);
    }
    if (gap == gaps_.begin()) return;
    const auto previous = std::prev(gap);
    if (previous->first + previous->second == gap->first) {
      previous->second += gap->second;
      gaps_.erase(gap);
    }
  }

  uint64_t end() const { return end_; }

 private:
  std::map<uint64_t, uint64_t> gaps_;
  uint64_t end_ = 0;
};

size_t size_for(const Buffer& buffer, size_t block) {
  return align_up(buffer.token_bytes != 0 ? buffer.token_bytes * block : buffer.bytes);
}

// Calls use(index) for the buffer of every value that the stage's steps read or write.
template <class Use>
void each_buffer(const Program& program, const Stage& stage, Use use) {
  for (size_t i = stage.begin; i < stage.end; ++i) {
    for (const auto* ids : {&program.steps[i].inputs, &program.steps[i].outputs}) {
      for (const ValueId id : *ids) {
        if (id != kNoValue) use(program.values[id].buffer);
      }
    }
  }
}

// Gives every activation an offset, so that two share memory only when one is no longer needed. To threads
// that go through a stage, all that it needs is needed at the same time; and the head may run more than once
// for a block, so that it needs until its end what it begins with.
uint64_t lay_out(Program& program, size_t block) {
  constexpr size_t kNever = ~size_t{0};
  std::vector<size_t> last_use(program.buffers.size(), kNever);
  const size_t end = program.stages.size(), head = end - program.head_stages;
  for (size_t i = 0; i < end; ++i) {
    each_buffer(program, program.stages[i], [&](uint32_t index) {
      last_use[index] = i < head || program.buffers[index].head ? i : end - 1;
    });
  }
  Arena arena;
  std::vector<bool> live(program.buffers.size(), false);
  for (size_t i = 0; i < program.stages.size(); ++i) {
    each_buffer(program, program.stages[i], [&](uint32_t index) {  // nothing is read before it is written
      Buffer& buffer = program.buffers[index];
      if (buffer.home != Home::kArena || live[index]) return;
      live[index] = true;
      buffer.offset = static_cast<size_t>(arena.take(size_for(buffer, block)));
    });
    each_buffer(program, program.stages[i], [&](uint32_t index) {
      if (!live[index] || last_use[index] != i) return;
      live[index] = false;
      arena.give(program.buffers[index].offset, size_for(program.buffers[index], block));
    });
  }
  return arena.end();
}

}  // namespace

void plan(Program& program, const Kernels& kernels) {
  program.block = kMaxBlock;
  uint64_t bytes = lay_out(program, program.block);
  while (bytes > kGoodArenaBytes && program.block > 1) {
    program.block /= 2;
    bytes = lay_out(program, program.block);
  }
  if (bytes > kMaxArenaGiB << 30) {
    throw Error(ErrorCode::kBadModel, program.source->path + ": one token needs more than " +
                                          std::to_string(kMaxArenaGiB) + " GiB of activations.");
  }
  program.arena_bytes = static_cast<size_t>(bytes);
  for (Step& step : program.steps) {
    step.first_operand = program.operands.size();
    add_operands(program, step, program.operands);
    program.scratch_floats =
        std::max({program.scratch_floats, step.op->scratch_floats(kernels, program.block),
                  step.op->scratch_floats(kernels, 1)});
  }
  program.scratch_floats = align_up(program.scratch_floats * sizeof(float)) / sizeof(float);
}

}  // namespace allmem
