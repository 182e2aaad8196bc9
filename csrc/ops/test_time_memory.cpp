// allmem::TestTimeMemory (docs/model.md): a network per KV head that learns while it is read. Its fast
// weights, momentum and pending gradient are states, updated in place; a chunk ends where the absolute
// position says so, so that it makes no difference how a caller cuts the stream into calls.
//
// Adding one token's gradient to G means to read and write all of G, more bytes than all else that the token
// needs. As W does not change within a chunk, tokens wait until there are kGradientBlock of them (or the
// chunk ends) and are then learned in one pass over G. How W, S and G are kept: ops/kept_memory.h.
#include <algorithm>

#include "ops/kept_memory.h"
#include "ops/registry.h"
#include "ops/widths.h"

namespace allmem::ops {

namespace {

using onnx::DataType;

// Tokens of one KV head that are read but not yet learned.
struct Waiting {
  float* count;  // [1], a whole number below kGradientBlock
  float* eta;    // [kGradientBlock]
  float* k;      // [kGradientBlock, D]
  float* v;      // [kGradientBlock, D]
  static size_t floats(size_t dim) { return 1 + kGradientBlock * (1 + 2 * dim); }
};

// What a speculative segment's tokens but the first overwrote, of one KV head: there is no learning in
// between.
struct Overwritten {
  float* beta_sum;  // [kMostSpeculative], before each token
  float* rows;      // [kMostSpeculative, 1 + 2 D]: η, k and v of Waiting
  static size_t floats(size_t dim) { return kMostSpeculative * (2 + 2 * dim); }
};
static_assert(kMostSpeculative < kGradientBlock);

// `Memory`: ExactMemory or FastMemory.
template <class Memory>
class TestTimeMemory : public Loop {
 public:
  // `waiting`: number of the output that keeps every KV head's Waiting. `overwritten`: offset among derived
  // data of every KV head's Overwritten.
  TestTimeMemory(const MemorySizes& sizes, size_t waiting, size_t overwritten,
                 const typename Memory::Place& place)
      : sizes_(sizes), waiting_(waiting), overwritten_(overwritten), place_(place) {}

  Items items(const RunContext& ctx) const override {
    return {sizes_.kv_heads, 1, ctx.tokens * (sizes_.group() + 3) * 3 * sizes_.hidden * sizes_.dim};
  }

  void run_items(const RunContext& ctx, size_t begin, size_t end, size_t worker) const override {
    for (size_t kv = begin; kv < end; ++kv) run_head(ctx, kv, ctx.scratch(worker));
  }

  // What the unfinished chunk has is learned now; Σβ goes on to the chunk's end.
  void settle(const RunContext& ctx) const override {
    for (size_t kv = 0; kv < sizes_.kv_heads; ++kv) {
      Memory memory(ctx, sizes_, place_, kv, ctx.scratch(0));
      if (ctx.fresh) memory.derive();
      learn_waiting(ctx, memory, kv);
      memory.settle();
    }
  }

  // What waits is learned with the first token at most, and so is a chunk's end written.
  size_t most_speculative(const RunContext& ctx) const override {
    if (!Memory::kSameInAnyBlock) return 1;
    size_t most = kMostSpeculative;
    if (ctx.frozen) return most;
    const auto into_chunk = static_cast<size_t>(ctx.position % sizes_.chunk);
    const bool ends = into_chunk + 1 == sizes_.chunk;
    most = std::min(most, sizes_.chunk - (ends ? 0 : into_chunk + 1));
    for (size_t kv = 0; kv < sizes_.kv_heads; ++kv) {
      const size_t waits = checked_count(*waiting_of(ctx, kv).count) + 1;
      most = std::min(most, kGradientBlock - (ends || waits == kGradientBlock ? 0 : waits));
    }
    return most;
  }

  void take_back(const RunContext& ctx, size_t count) const override {
    if (ctx.frozen) return;
    for (size_t kv = 0; kv < sizes_.kv_heads; ++kv) {
      const Waiting waiting = waiting_of(ctx, kv);
      const Overwritten overwritten = overwritten_of(ctx, kv);
      const size_t left = checked_count(*waiting.count) - count;
      for (size_t i = 0; i < count; ++i) restore(overwritten, ctx.tokens - count + i, waiting, left + i);
      *waiting.count = static_cast<float>(left);
      ctx.out(kBetaSum - kStateShift)[kv] = overwritten.beta_sum[ctx.tokens - count];
    }
  }

  size_t scratch_floats(const Kernels& kernels, size_t tokens) const override {
    return Memory::scratch_floats(kernels, sizes_, tokens);
  }

 private:
  void run_head(const RunContext& ctx, size_t kv, float* scratch) const {
    Memory memory(ctx, sizes_, place_, kv, scratch);
    if (ctx.fresh) memory.derive();
    for (size_t begin = 0; begin < ctx.tokens;) {
      const auto into_chunk = static_cast<size_t>((ctx.position + begin) % sizes_.chunk);
      const size_t end = std::min(ctx.tokens, begin + (sizes_.chunk - into_chunk));
      const size_t from = begin * sizes_.q_stride() + kv * sizes_.group() * sizes_.dim;
      memory.read(ctx.in(kQ) + from, ctx.out(0) + from, end - begin);
      if (!ctx.frozen) {
        learn(ctx, memory, kv, begin, end);
        if (into_chunk + (end - begin) == sizes_.chunk) write(ctx, memory, kv);
      }
      begin = end;
    }
    memory.close();
  }

  Waiting waiting_of(const RunContext& ctx, size_t kv) const {
    float* count = ctx.out(waiting_) + kv * Waiting::floats(sizes_.dim);
    float* eta = count + 1;
    return {count, eta, eta + kGradientBlock, eta + kGradientBlock * (1 + sizes_.dim)};
  }

  Overwritten overwritten_of(const RunContext& ctx, size_t kv) const {
    float* beta_sum = ctx.derived<float>(overwritten_) + kv * Overwritten::floats(sizes_.dim);
    return {beta_sum, beta_sum + kMostSpeculative};
  }

  // Row `row` of what waits, for the segment's token t to overwrite; and back.
  void keep(const Overwritten& overwritten, size_t t, const Waiting& waiting, size_t row) const {
    float* to = overwritten.rows + t * (1 + 2 * sizes_.dim);
    *to = waiting.eta[row];
    std::copy_n(waiting.k + row * sizes_.dim, sizes_.dim, to + 1);
    std::copy_n(waiting.v + row * sizes_.dim, sizes_.dim, to + 1 + sizes_.dim);
  }
  void restore(const Overwritten& overwritten, size_t t, const Waiting& waiting, size_t row) const {
    const float* from = overwritten.rows + t * (1 + 2 * sizes_.dim);
    waiting.eta[row] = *from;
    std::copy_n(from + 1, sizes_.dim, waiting.k + row * sizes_.dim);
    std::copy_n(from + 1 + sizes_.dim, sizes_.dim, waiting.v + row * sizes_.dim);
  }

  // How many tokens wait. A restored state may claim anything.
  static size_t checked_count(float count) {
    return count >= 1 && count < kGradientBlock ? static_cast<size_t>(count) : 0;
  }

  void learn_waiting(const Waiting& waiting, Memory& memory, size_t count) const {
    memory.learn({.k = waiting.k,
                  .v = waiting.v,
                  .eta = waiting.eta,
                  .stride = sizes_.dim,
                  .eta_stride = 1,
                  .n = count});
  }

  // G += Σ η ∇_W for the tokens that wait.
  void learn_waiting(const RunContext& ctx, Memory& memory, size_t kv) const {
    const Waiting waiting = waiting_of(ctx, kv);
    const size_t count = checked_count(*waiting.count);
    *waiting.count = 0;
    if (count > 0) learn_waiting(waiting, memory, count);
  }

  // G += Σ η ∇_W in whole blocks, the rest waits; Σβ += β.
  void learn(const RunContext& ctx, Memory& memory, size_t kv, size_t begin, size_t end) const {
    const Waiting waiting = waiting_of(ctx, kv);
    size_t count = checked_count(*waiting.count);
    for (size_t t = begin; t < end;) {
      const float* k = ctx.in(kK) + t * sizes_.k_stride() + kv * sizes_.dim;
      const float* v = ctx.in(kV) + t * sizes_.k_stride() + kv * sizes_.dim;
      const float* eta = ctx.in(kEta) + t * sizes_.kv_heads + kv;
      const size_t blocks = std::min(end - t, Memory::kMostTokens) / kGradientBlock;
      if (count == 0 && blocks > 0) {
        const size_t n = blocks * kGradientBlock;
        memory.learn(
            {.k = k, .v = v, .eta = eta, .stride = sizes_.k_stride(), .eta_stride = sizes_.kv_heads, .n = n});
        t += n;
        continue;
      }
      if (ctx.speculative) keep(overwritten_of(ctx, kv), t, waiting, count);
      waiting.eta[count] = *eta;
      std::copy_n(k, sizes_.dim, waiting.k + count * sizes_.dim);
      std::copy_n(v, sizes_.dim, waiting.v + count * sizes_.dim);
      if (++count == kGradientBlock) {
        learn_waiting(waiting, memory, count);
        count = 0;
      }
      ++t;
    }
    *waiting.count = static_cast<float>(count);
    float& beta_sum = ctx.out(kBetaSum - kStateShift)[kv];
    for (size_t t = begin; t < end; ++t) {
      if (ctx.speculative) overwritten_of(ctx, kv).beta_sum[t] = beta_sum;
      beta_sum += ctx.in(kBeta)[t * sizes_.kv_heads + kv];
    }
  }

  // The end of a chunk: S = β̄ S + G, W = Ŵ - S.
  void write(const RunContext& ctx, Memory& memory, size_t kv) const {
    learn_waiting(ctx, memory, kv);
    float& beta_sum = ctx.out(kBetaSum - kStateShift)[kv];
    // At most 1, also where a boundary passed by while the memory was frozen, and more tokens learned than a
    // chunk has.
    memory.write(std::min(beta_sum / static_cast<float>(sizes_.chunk), 1.0f));
    beta_sum = 0;
  }

  MemorySizes sizes_;
  size_t waiting_, overwritten_;
  typename Memory::Place place_;
};

// Declares W, S and G; those that a frozen memory does not need are left out. Returns where the weights
// start. `packed`: bytes of a KV head's matrix as FastMemory keeps it, 0 for float32.
std::array<const float*, 3> bind_matrices(Binder& node, const MemorySizes& sizes, bool frozen,
                                          size_t packed) {
  const auto kv_heads = static_cast<int64_t>(sizes.kv_heads), dim = static_cast<int64_t>(sizes.dim),
             hidden = static_cast<int64_t>(sizes.hidden);
  std::array<const float*, 3> initial{};
  for (size_t i = kWGate; i < kBetaSum; ++i) {
    const bool down = (i - kWGate) % 3 == 2;
    const Shape shape = down ? Shape{kv_heads, dim, hidden} : Shape{kv_heads, hidden, dim};
    if (frozen && i >= kSGate) {
      node.leave_out_state(i - kStateShift, i, shape);
    } else if (packed > 0) {
      node.update_packed_state(i - kStateShift, i, shape, uint64_t{sizes.kv_heads} * packed,
                               StateForm::kDifference);
    } else {
      node.update_state(i - kStateShift, i, shape);
    }
    if (i < kSGate) initial[i - kWGate] = node.initial_value(i);
  }
  return initial;
}

bool starts_at_zero(const Binder& node, size_t begin, size_t end) {
  for (size_t i = begin; i < end; ++i)
    if (!node.starts_at_zero(i)) return false;
  return true;
}

}  // namespace

MadeOp make_test_time_memory(Binder& node) {
  node.expect_inputs(kInputs, kInputs);
  const int64_t hidden = node.size_attribute("hidden", 1), file_chunk = node.size_attribute("chunk", 1);
  check_hidden(node, node.size_attribute("num_heads", 1), node.size_attribute("head_dim", 1), hidden);
  const MemoryHeads heads = bind_memory_inputs(node);
  const auto kv_heads = static_cast<int64_t>(heads.kv_heads), dim = static_cast<int64_t>(heads.dim);
  const int64_t chunk = node.choices().chunk.value_or(file_chunk);
  const bool frozen = node.choices().memory == MemoryUse::kFrozen;
  node.input(kNormGate, DataType::kFloat, {kv_heads, hidden});
  node.input(kNormUp, DataType::kFloat, {kv_heads, hidden});
  node.input(kNormDown, DataType::kFloat, {kv_heads, dim});
  for (const size_t norm : {kNormGate, kNormUp, kNormDown})
    node.constant_bytes(norm);  // r is computed between calls
  node.require(node.is_position(kPosition), "needs the graph input 'position' as its last input");

  const MemorySizes sizes{heads, static_cast<size_t>(hidden), static_cast<size_t>(chunk)};
  // In 8 bits, momentum and gradient are what they are, and no difference.
  const bool exact = node.exact() || !starts_at_zero(node, kSGate, kBetaSum);
  const auto initial = bind_matrices(node, sizes, frozen, exact ? 0 : ValuesQ8::bytes(sizes.matrix()));
  if (frozen) {
    node.leave_out_state(kBetaSum - kStateShift, kBetaSum, {kv_heads});
  } else {
    node.update_state(kBetaSum - kStateShift, kBetaSum, {kv_heads});
  }
  const size_t waiting = frozen ? 0 : node.kept({kv_heads, static_cast<int64_t>(Waiting::floats(sizes.dim))});
  const size_t row_scales = node.derived(uint64_t{sizes.kv_heads} * sizes.row_scales() * sizeof(float));
  if (exact)
    return std::make_unique<TestTimeMemory<ExactMemory>>(sizes, waiting, 0, ExactMemory::Place{row_scales});
  const size_t copies = node.derived(sizes.kv_heads * MemoryQ8::bytes(sizes.dim, sizes.hidden));
  const size_t overwritten =
      frozen ? 0 : node.derived(uint64_t{sizes.kv_heads} * Overwritten::floats(sizes.dim) * sizeof(float));
  return std::make_unique<TestTimeMemory<FastMemory>>(sizes, waiting, overwritten,
                                                      FastMemory::Place{row_scales, copies, initial});
}

}  // namespace allmem::ops
