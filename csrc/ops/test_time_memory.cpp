// allmem::TestTimeMemory (docs/model.md): a network per KV head that learns while it is read. Its fast
// weights, momentum and pending gradient are states, updated in place; a chunk ends where the absolute
// position says so, so that it makes no difference how a caller cuts the stream into calls.
//
// Adding one token's gradient to G means to read and write all of G, more bytes than all else that the token
// needs. As W does not change within a chunk, tokens wait until there are kGradientBlock of them (or the
// chunk ends) and are then learned in one pass over G.
#include <algorithm>
#include <optional>

#include "kernels/kernels.h"
#include "kernels/memory_q8.h"
#include "ops/memory_inputs.h"
#include "ops/registry.h"

namespace allmem::ops {

namespace {

using onnx::DataType;

// The node's further inputs, docs/format.md. An output's number is that of its state's input less
// kStateShift.
enum Input : size_t {
  kNormGate = kOwnInputs,
  kNormUp,
  kNormDown,
  kWGate,
  kWUp,
  kWDown,
  kSGate,
  kSUp,
  kSDown,
  kGGate,
  kGUp,
  kGDown,
  kBetaSum,
  kPosition,
  kInputs
};
constexpr size_t kStateShift = kWGate - 1;
constexpr size_t kGradientBlock = 32;  // tokens whose gradient is added to G at a time

// Tokens of one KV head that are read but not yet learned.
struct Waiting {
  float* count;  // [1], a whole number below kGradientBlock
  float* eta;    // [kGradientBlock]
  float* k;      // [kGradientBlock, D]
  float* v;      // [kGradientBlock, D]
  static size_t floats(size_t dim) { return 1 + kGradientBlock * (1 + 2 * dim); }
};

struct Sizes : MemoryHeads {
  size_t hidden, chunk;
};

// Where the session keeps what is computed from the fast weights, of all KV heads.
struct Derived {
  size_t row_scales;             // r, [Hkv, h + h + D]
  std::optional<size_t> copies;  // 8-bit copies for reading (memory_q8.h), unless all is exact
};

class TestTimeMemory : public Loop {
 public:
  // `waiting`: number of the output that keeps every KV head's Waiting.
  TestTimeMemory(const Sizes& sizes, size_t waiting, const Derived& derived)
      : sizes_(sizes), waiting_(waiting), derived_(derived) {}

  Items items(const RunContext& ctx) const override {
    return {sizes_.kv_heads, 1, ctx.tokens * (sizes_.group() + 3) * 3 * sizes_.hidden * sizes_.dim};
  }

  void run_items(const RunContext& ctx, size_t begin, size_t end, size_t worker) const override {
    for (size_t kv = begin; kv < end; ++kv) run_head(ctx, kv, ctx.scratch(worker));
  }

  void settle(const RunContext& ctx) const override {
    for (size_t kv = 0; kv < sizes_.kv_heads; ++kv) settle_head(ctx, kv, ctx.scratch(0));
  }

  size_t scratch_floats(const Kernels& kernels, size_t tokens) const override {
    const size_t exact = kernels.memory_scratch(sizes_.dim, sizes_.hidden);
    if (!derived_.copies) return exact;
    return std::max(exact, MemoryQ8::scratch_floats(sizes_.dim, sizes_.hidden, tokens, sizes_.group()));
  }

 private:
  void run_head(const RunContext& ctx, size_t kv, float* scratch) const {
    const MemoryHead head = memory_of(ctx, kv);
    if (ctx.fresh) derive(ctx, head, kv, scratch);
    for (size_t begin = 0; begin < ctx.tokens;) {
      const auto into_chunk = static_cast<size_t>((ctx.position + begin) % sizes_.chunk);
      const size_t end = std::min(ctx.tokens, begin + (sizes_.chunk - into_chunk));
      read(ctx, head, kv, begin, end, scratch);
      if (!ctx.frozen) {
        learn(ctx, head, kv, begin, end, scratch);
        if (into_chunk + (end - begin) == sizes_.chunk) write(ctx, head, kv, scratch);
      }
      begin = end;
    }
  }

  MemoryHead memory_of(const RunContext& ctx, size_t kv) const {
    const size_t size = sizes_.hidden * sizes_.dim;
    const auto state = [&](size_t input) { return ctx.out(input - kStateShift) + kv * size; };
    float* r = ctx.derived<float>(derived_.row_scales) + kv * (2 * sizes_.hidden + sizes_.dim);
    return {.dim = sizes_.dim,
            .hidden = sizes_.hidden,
            .w_gate = state(kWGate),
            .w_up = state(kWUp),
            .w_down = state(kWDown),
            .s_gate = state(kSGate),
            .s_up = state(kSUp),
            .s_down = state(kSDown),
            .g_gate = state(kGGate),
            .g_up = state(kGUp),
            .g_down = state(kGDown),
            .r_gate = r,
            .r_up = r + sizes_.hidden,
            .r_down = r + 2 * sizes_.hidden};
  }

  MemoryQ8 copy_of(const RunContext& ctx, size_t kv) const {
    const size_t bytes = MemoryQ8::bytes(sizes_.dim, sizes_.hidden);
    return {sizes_.dim, sizes_.hidden, ctx.derived<std::byte>(*derived_.copies) + kv * bytes};
  }

  // What follows from W, which has changed.
  void derive(const RunContext& ctx, const MemoryHead& head, size_t kv, float* scratch) const {
    ctx.kernels.memory_row_scales(head, ctx.in(kNormGate) + kv * sizes_.hidden,
                                  ctx.in(kNormUp) + kv * sizes_.hidden, ctx.in(kNormDown) + kv * sizes_.dim);
    if (derived_.copies) copy_of(ctx, kv).remake(ctx.kernels, head, scratch);
  }

  // o_t = M_W(q̃_t) for the query heads that read this memory.
  void read(const RunContext& ctx, const MemoryHead& head, size_t kv, size_t begin, size_t end,
            float* scratch) const {
    const size_t stride = sizes_.heads * sizes_.dim, from = begin * stride + kv * sizes_.group() * sizes_.dim;
    const float* q = ctx.in(kQ) + from;
    float* y = ctx.out(0) + from;
    if (derived_.copies) {
      copy_of(ctx, kv).read(ctx.kernels, q, y, end - begin, sizes_.group(), stride, scratch);
      return;
    }
    for (size_t j = 0; j < sizes_.group(); ++j) {
      ctx.kernels.memory_read(head, q + j * sizes_.dim, stride, y + j * sizes_.dim, stride, end - begin,
                              scratch);
    }
  }

  Waiting waiting_of(const RunContext& ctx, size_t kv) const {
    float* count = ctx.out(waiting_) + kv * Waiting::floats(sizes_.dim);
    float* eta = count + 1;
    return {count, eta, eta + kGradientBlock, eta + kGradientBlock * (1 + sizes_.dim)};
  }

  // How many tokens wait. A restored state may claim anything.
  static size_t checked_count(float count) {
    return count >= 1 && count < kGradientBlock ? static_cast<size_t>(count) : 0;
  }

  auto accumulate(const RunContext& ctx) const {
    return derived_.copies ? ctx.kernels.memory_accumulate_fast : ctx.kernels.memory_accumulate;
  }

  // G += Σ η ∇_W for the tokens that wait.
  void learn_waiting(const RunContext& ctx, const MemoryHead& head, size_t kv, float* scratch) const {
    const Waiting waiting = waiting_of(ctx, kv);
    const size_t count = checked_count(*waiting.count);
    *waiting.count = 0;
    if (count == 0) return;
    accumulate(ctx)(head, waiting.k, sizes_.dim, waiting.v, sizes_.dim, waiting.eta, 1, count, scratch);
  }

  // G += Σ η ∇_W in whole blocks, the rest waits; Σβ += β.
  void learn(const RunContext& ctx, const MemoryHead& head, size_t kv, size_t begin, size_t end,
             float* scratch) const {
    const size_t stride = sizes_.kv_heads * sizes_.dim;
    const Waiting waiting = waiting_of(ctx, kv);
    size_t count = checked_count(*waiting.count);
    for (size_t t = begin; t < end;) {
      const float* k = ctx.in(kK) + t * stride + kv * sizes_.dim;
      const float* v = ctx.in(kV) + t * stride + kv * sizes_.dim;
      const float* eta = ctx.in(kEta) + t * sizes_.kv_heads + kv;
      if (const size_t whole = (end - t) / kGradientBlock * kGradientBlock; count == 0 && whole > 0) {
        accumulate(ctx)(head, k, stride, v, stride, eta, sizes_.kv_heads, whole, scratch);
        t += whole;
        continue;
      }
      waiting.eta[count] = *eta;
      std::copy_n(k, sizes_.dim, waiting.k + count * sizes_.dim);
      std::copy_n(v, sizes_.dim, waiting.v + count * sizes_.dim);
      if (++count == kGradientBlock) {
        accumulate(ctx)(head, waiting.k, sizes_.dim, waiting.v, sizes_.dim, waiting.eta, 1, count, scratch);
        count = 0;
      }
      ++t;
    }
    *waiting.count = static_cast<float>(count);
    float& beta_sum = ctx.out(kBetaSum - kStateShift)[kv];
    for (size_t t = begin; t < end; ++t) beta_sum += ctx.in(kBeta)[t * sizes_.kv_heads + kv];
  }

  // What the unfinished chunk has is learned now: W = Ŵ - G, S += G, G = 0. Unlike the end of a chunk this is
  // no step of the momentum, which neither decays nor moves W once more; Σβ goes on to the chunk's end.
  void settle_head(const RunContext& ctx, size_t kv, float* scratch) const {
    const MemoryHead head = memory_of(ctx, kv);
    if (ctx.fresh) derive(ctx, head, kv, scratch);
    learn_waiting(ctx, head, kv, scratch);
    const size_t size = sizes_.hidden * sizes_.dim;
    const auto is_zero = [](float value) { return value == 0.0f; };
    const auto nothing = [&](const float* g) { return std::all_of(g, g + size, is_zero); };
    if (nothing(head.g_gate) && nothing(head.g_up) && nothing(head.g_down)) return;
    const auto add = [&](float* s, const float* g) {
      for (size_t i = 0; i < size; ++i) s[i] += g[i];
    };
    add(head.s_gate, head.g_gate);
    add(head.s_up, head.g_up);
    add(head.s_down, head.g_down);
    MemoryHead alone = head;  // a momentum of G alone: W = Ŵ - (0 G + G)
    alone.s_gate = head.g_gate;
    alone.s_up = head.g_up;
    alone.s_down = head.g_down;
    ctx.kernels.memory_write(alone, 0.0f);
    derive(ctx, head, kv, scratch);
  }

  // The end of a chunk: S = β̄ S + G, W = Ŵ - S.
  void write(const RunContext& ctx, const MemoryHead& head, size_t kv, float* scratch) const {
    learn_waiting(ctx, head, kv, scratch);
    float& beta_sum = ctx.out(kBetaSum - kStateShift)[kv];
    // At most 1, also where a boundary passed by while the memory was frozen, and more tokens learned than a
    // chunk has.
    ctx.kernels.memory_write(head, std::min(beta_sum / static_cast<float>(sizes_.chunk), 1.0f));
    beta_sum = 0;
    derive(ctx, head, kv, scratch);
  }

  Sizes sizes_;
  size_t waiting_;
  Derived derived_;
};

}  // namespace

MadeOp make_test_time_memory(Binder& node) {
  node.expect_inputs(kInputs, kInputs);
  const MemoryHeads heads = bind_memory_inputs(node);
  const auto kv_heads = static_cast<int64_t>(heads.kv_heads), dim = static_cast<int64_t>(heads.dim);
  const int64_t hidden = node.size_attribute("hidden", 1), file_chunk = node.size_attribute("chunk", 1);
  const int64_t chunk = node.choices().chunk.value_or(file_chunk);
  const bool frozen = node.choices().memory == MemoryUse::kFrozen;
  node.input(kNormGate, DataType::kFloat, {kv_heads, hidden});
  node.input(kNormUp, DataType::kFloat, {kv_heads, hidden});
  node.input(kNormDown, DataType::kFloat, {kv_heads, dim});
  for (const size_t norm : {kNormGate, kNormUp, kNormDown})
    node.constant_bytes(norm);  // r is computed between calls
  node.require(node.is_position(kPosition), "needs the graph input 'position' as its last input");

  for (size_t i = kWGate; i < kBetaSum; ++i) {
    const bool down = (i - kWGate) % 3 == 2;
    const Shape shape = down ? Shape{kv_heads, dim, hidden} : Shape{kv_heads, hidden, dim};
    if (frozen && i >= kSGate) {
      node.leave_out_state(i - kStateShift, i, shape);
    } else {
      node.update_state(i - kStateShift, i, shape);
    }
  }
  if (frozen) {
    node.leave_out_state(kBetaSum - kStateShift, kBetaSum, {kv_heads});
  } else {
    node.update_state(kBetaSum - kStateShift, kBetaSum, {kv_heads});
  }
  const Sizes sizes{heads, static_cast<size_t>(hidden), static_cast<size_t>(chunk)};
  Derived derived{.row_scales = node.derived(sizes.kv_heads * (2 * sizes.hidden + sizes.dim) * sizeof(float)),
                  .copies = {}};
  if (!node.exact()) derived.copies = node.derived(sizes.kv_heads * MemoryQ8::bytes(sizes.dim, sizes.hidden));
  const size_t waiting = frozen ? 0 : node.kept({kv_heads, static_cast<int64_t>(Waiting::floats(sizes.dim))});
  return std::make_unique<TestTimeMemory>(sizes, waiting, derived);
}

}  // namespace allmem::ops
