// allmem::LinearMemory (docs/model.md): a matrix per KV head that is written with every token, by the gated
// delta rule. It is the state, updated in place; nothing waits for the end of a chunk.
#include "kernels/kernels.h"
#include "ops/memory_inputs.h"
#include "ops/registry.h"
#include "platform/error.h"

namespace allmem::ops {

namespace {

constexpr size_t kMatrix = kOwnInputs, kInputs = kMatrix + 1;
constexpr size_t kMatrixOut = 1;

class LinearMemory : public Loop {
 public:
  LinearMemory(const MemoryHeads& sizes, bool delta) : sizes_(sizes), delta_(delta) {}

  Items items(const RunContext& ctx) const override {
    return {sizes_.kv_heads, 1, ctx.tokens * (sizes_.group() + 2) * sizes_.dim * sizes_.dim};
  }

  void run_items(const RunContext& ctx, size_t begin, size_t end, size_t worker) const override {
    for (size_t kv = begin; kv < end; ++kv) run_head(ctx, kv, ctx.scratch(worker));
  }

  // Every token writes the matrix.
  size_t most_speculative(const RunContext& ctx) const override {
    return ctx.frozen && sizes_.dim <= kOrderedRows ? kMostSpeculative : 1;
  }

  size_t scratch_floats(const Kernels& /*kernels*/, size_t /*tokens*/) const override { return sizes_.dim; }

 private:
  void run_head(const RunContext& ctx, size_t kv, float* scratch) const {
    const size_t D = sizes_.dim, group = sizes_.group();
    float* matrix = ctx.out(kMatrixOut) + kv * D * D;
    for (size_t t = 0; t < ctx.tokens; ++t) {
      const size_t key = t * sizes_.k_stride() + kv * D, rate = t * sizes_.kv_heads + kv;
      const size_t query = t * sizes_.q_stride() + kv * group * D;
      if (!ctx.frozen) {
        ctx.kernels.linear_memory_write(matrix, ctx.in(kK) + key, ctx.in(kV) + key, ctx.in(kEta)[rate],
                                        ctx.in(kBeta)[rate], delta_, D, scratch);
      }
      // o_t = S_t q̃_t for the query heads that read this memory
      ctx.kernels.linear_f32(ctx.in(kQ) + query, matrix, nullptr, ctx.out(0) + query, group, D, D, 0, D);
    }
  }

  MemoryHeads sizes_;
  bool delta_;
};

}  // namespace

MadeOp make_linear_memory(Binder& node) {
  node.expect_inputs(kInputs, kInputs);
  const MemoryHeads sizes = bind_memory_inputs(node);
  const int64_t delta = node.int_attribute("delta");
  node.require(delta == 0 || delta == 1, "needs 0 or 1 for 'delta'");
  const auto kv_heads = static_cast<int64_t>(sizes.kv_heads), dim = static_cast<int64_t>(sizes.dim);
  node.update_state(kMatrixOut, kMatrix, {kv_heads, dim, dim});
  if (node.choices().chunk.value_or(1) != 1) {
    throw Error(
        ErrorCode::kInvalidArgument,
        "The memory of this model is linear, which is written with every token: its chunk is 1, and no "
        "other can be chosen.");
  }
  return std::make_unique<LinearMemory>(sizes, delta == 1);
}

}  // namespace allmem::ops
