// Finding an operator's memory.
#include "graph/op.h"

#include "graph/program.h"
#include "platform/thread_pool.h"

namespace allmem {

float* RunContext::scratch(size_t worker) const { return scratch_data + worker * program.scratch_floats; }

bool RunContext::has(size_t i) const { return i < step->inputs.size() && step->inputs[i] != kNoValue; }

std::byte* RunContext::input_address(size_t i) const {
  const uint32_t index = program.values[step->inputs[i]].buffer;
  const Buffer& buffer = program.buffers[index];
  // A step that runs for the last rows only reads the last rows of what was computed for all.
  const size_t rows_before = first + (buffer.head ? 0 : skipped);
  return buffers[index] + rows_before * buffer.token_bytes;
}

std::byte* RunContext::output_address(size_t i) const {
  const uint32_t index = program.values[step->outputs[i]].buffer;
  return buffers[index] + first * program.buffers[index].token_bytes;
}

void Loop::run(const RunContext& ctx) const {
  const auto [count, grain, work] = items(ctx);
  if (count * work < kWorthSharing) return run_items(ctx, 0, count, 0);
  ctx.pool.parallel(count, grain,
                    [&](size_t begin, size_t end, size_t worker) { run_items(ctx, begin, end, worker); });
}

}  // namespace allmem
