// Finding an operator's memory.
#include "graph/op.h"

#include "graph/program.h"

namespace allmem {

float* RunContext::scratch(size_t worker) const { return scratch_data + worker * program.scratch_floats; }

bool RunContext::has(size_t i) const { return i < step->inputs.size() && step->inputs[i] != kNoValue; }

std::byte* RunContext::input_address(size_t i) const {
  const uint32_t index = program.values[step->inputs[i]].buffer;
  const Buffer& buffer = program.buffers[index];
  // A step that runs for the last rows only reads the last rows of what was computed for all.
  const size_t skipped = step->head && !buffer.head ? block_tokens - tokens : 0;
  return buffers[index] + skipped * buffer.token_bytes;
}

std::byte* RunContext::output_address(size_t i) const {
  return buffers[program.values[step->outputs[i]].buffer];
}

}  // namespace allmem
