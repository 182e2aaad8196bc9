// Finding an operator's memory.
#include "graph/op.h"

#include "graph/program.h"
#include "platform/thread_pool.h"

namespace allmem {

float* RunContext::scratch(size_t worker) const { return scratch_data + worker * program.scratch_floats; }

bool RunContext::has(size_t i) const { return i < step->inputs.size() && step->inputs[i] != kNoValue; }

RunContext RunContext::of(const Segment& segment) const {
  RunContext own = *this;
  own.segments = {&segment, 1};
  own.first = segment.begin;
  own.tokens = segment.tokens;
  own.position = segment.position;
  own.frozen = segment.frozen;
  own.fresh = segment.fresh;
  own.speculative = segment.speculative;
  own.derived_data = segment.derived;
  own.homes[static_cast<size_t>(Home::kState)] = segment.state;
  return own;
}

std::byte* RunContext::address(const Operand& operand) const {
  if (operand.constant != nullptr) return operand.constant;
  return homes[static_cast<size_t>(operand.home)] + operand.offset;
}

std::byte* RunContext::input_address(size_t i) const {
  const Operand& operand = operands[step->first_operand + i];
  // A step that runs for some rows only reads these rows of what was computed for all.
  return address(operand) + (first + (operand.head ? 0 : skipped)) * operand.token_bytes;
}

std::byte* RunContext::output_address(size_t i) const {
  const Operand& operand = operands[step->first_operand + step->inputs.size() + i];
  return address(operand) + first * operand.token_bytes;
}

void add_operands(const Program& program, const Step& step, std::vector<Operand>& operands) {
  for (const auto* ids : {&step.inputs, &step.outputs}) {
    for (const ValueId id : *ids) {
      if (id == kNoValue) {
        operands.emplace_back();
        continue;
      }
      const Buffer& buffer = program.buffers[program.values[id].buffer];
      operands.push_back({.constant = const_cast<std::byte*>(buffer.constant),  // operators only read inputs
                          .offset = buffer.offset,
                          .token_bytes = buffer.token_bytes,
                          .home = buffer.home,
                          .head = buffer.head});
    }
  }
}

void Loop::run(const RunContext& ctx) const {
  const auto [count, grain, work] = items(ctx);
  if (count * work < kWorthSharing) return run_items(ctx, 0, count, 0);
  ctx.pool.parallel(count, grain,
                    [&](size_t begin, size_t end, size_t worker) { run_items(ctx, begin, end, worker); });
}

}  // namespace allmem
