// Finding an operator's memory.
#include "graph/op.h"

#include "graph/program.h"
#include "platform/thread_pool.h"

namespace allmem {

float* RunContext::scratch(size_t worker) const { return scratch_data + worker * program.scratch_floats; }

bool RunContext::has(size_t i) const { return i < step->inputs.size() && step->inputs[i] != kNoValue; }

std::byte* RunContext::input_address(size_t i) const {
  const Operand& operand = operands[step->first_operand + i];
  // A step that runs for the last rows only reads the last rows of what was computed for all.
  return operand.data + (first + (operand.head ? 0 : skipped)) * operand.token_bytes;
}

std::byte* RunContext::output_address(size_t i) const {
  const Operand& operand = operands[step->first_operand + step->inputs.size() + i];
  return operand.data + first * operand.token_bytes;
}

void add_operands(const Program& program, const Step& step, std::span<std::byte* const> addresses,
                  std::vector<Operand>& operands) {
  for (const auto* ids : {&step.inputs, &step.outputs}) {
    for (const ValueId id : *ids) {
      if (id == kNoValue) {
        operands.emplace_back();
        continue;
      }
      const uint32_t index = program.values[id].buffer;
      const Buffer& buffer = program.buffers[index];
      operands.push_back({addresses[index], buffer.token_bytes, buffer.head});
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
