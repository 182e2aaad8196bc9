// allmem::SlidingWindowAttention (docs/format.md): exact attention over the last W tokens and the first S.
// The state, a ring of rotated keys and values, is updated in place.
#include <cmath>
#include <cstring>
#include <limits>
#include <span>

#include "graph/program.h"
#include "kernels/attention_q8.h"
#include "kernels/kernels.h"
#include "ops/registry.h"
#include "ops/rope.h"
#include "ops/widths.h"

namespace allmem::ops {

namespace {

using onnx::DataType;

struct Sizes {
  size_t heads, kv_heads, dim, window, sinks;
  size_t slots() const { return sinks + window; }
};

// Numbers of the inputs and outputs that hold what the node does not name.
struct Slots {
  size_t cos, sin, cos_sink, sin_sink;  // inputs
  size_t q, k, q_sink;                  // temporaries
};

float scale_of(const Sizes& sizes) {
  return static_cast<float>(1.0 / std::sqrt(static_cast<double>(sizes.dim)));
}

// One item for each KV head.
Loop::Items items_of(const Sizes& sizes, const RunContext& ctx) {
  const auto keys = static_cast<size_t>(std::min<uint64_t>(sizes.slots(), ctx.position + ctx.tokens));
  return {sizes.kv_heads, 1, 2 * ctx.tokens * keys * sizes.dim * sizes.heads / sizes.kv_heads};
}

// RoPE on this call's queries and keys of some KV heads.
void rotate(const Sizes& sizes, const Slots& slots, const RunContext& ctx, size_t begin, size_t end) {
  const auto rotate = [&](size_t input, size_t cos, size_t sin, size_t output, size_t heads) {
    const size_t each = heads / sizes.kv_heads, row = heads * sizes.dim, half = sizes.dim / 2;
    for (size_t t = 0; t < ctx.tokens; ++t) {
      const size_t at = t * row + begin * each * sizes.dim;
      ctx.kernels.rotate(ctx.in(input) + at, ctx.in(cos) + t * half, ctx.in(sin) + t * half,
                         ctx.out(output) + at, 1, (end - begin) * each, sizes.dim);
    }
  };
  rotate(0, slots.cos, slots.sin, slots.q, sizes.heads);
  rotate(1, slots.cos, slots.sin, slots.k, sizes.kv_heads);
  if (sizes.sinks > 0) rotate(0, slots.cos_sink, slots.sin_sink, slots.q_sink, sizes.heads);
}

// Keys and values in float32.
class SlidingWindowAttention : public Loop {
 public:
  SlidingWindowAttention(const Sizes& sizes, const Slots& slots) : sizes_(sizes), slots_(slots) {}

  Items items(const RunContext& ctx) const override { return items_of(sizes_, ctx); }

  void run_items(const RunContext& ctx, size_t begin, size_t end, size_t worker) const override {
    const size_t T = ctx.tokens;
    rotate(sizes_, slots_, ctx, begin, end);
    AttentionArgs args = arguments(T, ctx.position);
    args.q = ctx.out(slots_.q);
    args.q_sink = ctx.out(sizes_.sinks > 0 ? slots_.q_sink : slots_.q);
    args.k = ctx.out(slots_.k);
    args.v = ctx.in(2);
    args.k_ring = ctx.in(3);
    args.v_ring = ctx.in(4);
    args.y = ctx.out(0);
    ctx.kernels.attention(args, begin, end, ctx.scratch(worker));
    for (size_t head = begin; head < end; ++head) {
      store(args.k, ctx.out(1), head, T, ctx.position);
      store(args.v, ctx.out(2), head, T, ctx.position);
    }
  }

  size_t most_speculative(const RunContext&) const override { return 1; }  // sums in another order

  size_t scratch_floats(const Kernels& kernels, size_t tokens) const override {
    return std::max(kernels.attention_scratch(arguments(tokens, 0)),
                    kernels.attention_scratch(arguments(tokens, sizes_.slots())));
  }

 private:
  AttentionArgs arguments(size_t tokens, uint64_t position) const {
    AttentionArgs args{};
    args.tokens = tokens;
    args.heads = sizes_.heads;
    args.kv_heads = sizes_.kv_heads;
    args.dim = sizes_.dim;
    args.window = sizes_.window;
    args.sinks = sizes_.sinks;
    args.position = position;
    args.scale = scale_of(sizes_);
    return args;
  }

  // Puts one head's rows of this block, [T, Hkv, D], into their slots of the ring.
  void store(const float* rows, float* ring, size_t head, size_t T, uint64_t position) const {
    const auto [heads, kv_heads, dim, window, sinks] = sizes_;
    for (size_t t = 0; t < T; ++t) {
      const uint64_t p = position + t;
      if (p >= sinks && T - t > window) continue;  // its slot is taken again within this block
      const uint64_t slot = p < sinks ? p : sinks + (p - sinks) % window;
      std::memcpy(ring + (head * sizes_.slots() + slot) * dim, rows + (t * kv_heads + head) * dim,
                  dim * sizeof(float));
    }
  }

  Sizes sizes_;
  Slots slots_;
};

// Keys and values in 8 bits.
class SlidingWindowAttentionQ8 : public Loop {
 public:
  // `overwritten`: offset among derived data of room for what the tokens of a draft overwrite.
  SlidingWindowAttentionQ8(const Sizes& sizes, const Slots& slots, const KvRing& ring, size_t overwritten)
      : sizes_(sizes), slots_(slots), ring_(ring), overwritten_(overwritten) {}

  static uint64_t overwritten_bytes(const KvRing& ring) {
    return uint64_t{ring.kv_heads} * (kMostSpeculative - 1) * ring.slot_bytes();
  }

  Items items(const RunContext& ctx) const override { return items_of(sizes_, ctx); }

  void run_items(const RunContext& ctx, size_t begin, size_t end, size_t worker) const override {
    rotate(sizes_, slots_, ctx, begin, end);
    const KvBytes bytes{ctx.out<std::byte>(1), ctx.out<std::byte>(2)};
    const AttentionQ8Args args{.ring = ring_,
                               .bytes = bytes,
                               .tokens = ctx.tokens,
                               .heads = sizes_.heads,
                               .position = ctx.position,
                               .q = ctx.out(slots_.q),
                               .q_sink = ctx.out(sizes_.sinks > 0 ? slots_.q_sink : slots_.q),
                               .scale = scale_of(sizes_),
                               .y = ctx.out(0)};
    float* scratch = ctx.scratch(worker);
    if (ctx.speculative) {
      for (size_t t = 1; t < ctx.tokens; ++t)
        for (size_t kv = begin; kv < end; ++kv)
          copy_slot(ring_, bytes, kv, ctx.position + t, overwritten(ctx, kv, t));
    }
    store_kv(ctx.kernels, ring_, ctx.out(slots_.k), ctx.in(2), ctx.tokens, ctx.position, bytes, begin, end,
             scratch);
    attention_q8(ctx.kernels, args, begin, end, scratch);
  }

  void take_back(const RunContext& ctx, size_t count) const override {
    const KvBytes bytes{ctx.out<std::byte>(1), ctx.out<std::byte>(2)};
    for (size_t t = ctx.tokens - count; t < ctx.tokens; ++t)
      for (size_t kv = 0; kv < ring_.kv_heads; ++kv)
        restore_slot(ring_, bytes, kv, ctx.position + t, overwritten(ctx, kv, t));
  }

  size_t scratch_floats(const Kernels& /*kernels*/, size_t tokens) const override {
    return attention_q8_scratch(ring_, sizes_.heads, tokens);
  }

 private:
  // Of the segment's token t > 0.
  std::byte* overwritten(const RunContext& ctx, size_t kv, size_t t) const {
    const size_t index = kv * (kMostSpeculative - 1) + t - 1;
    return ctx.derived<std::byte>(overwritten_) + index * ring_.slot_bytes();
  }

  Sizes sizes_;
  Slots slots_;
  KvRing ring_;
  size_t overwritten_;
};

}  // namespace

MadeOp make_sliding_window_attention(Binder& node) {
  node.expect_inputs(6, 6);
  const int64_t heads = node.size_attribute("num_heads", 1),
                kv_heads = node.size_attribute("num_kv_heads", 1);
  const int64_t dim = node.size_attribute("head_dim", 2);
  const int64_t file_window = node.size_attribute("window", 1), file_sinks = node.size_attribute("sinks", 0);
  const int64_t window = node.choices().window.value_or(file_window);
  const int64_t sinks = node.choices().sinks.value_or(file_sinks);
  const float scale = node.float_attribute("rope_scale", 1.0f);
  node.require(heads % kv_heads == 0, "needs num_heads to be a multiple of num_kv_heads");
  check_heads(node, heads, dim);
  const auto* inv_freq = node.attribute("rope_inv_freq", onnx::Attribute::Type::kFloats);
  node.require(inv_freq != nullptr && dim % 2 == 0 && inv_freq->floats.size() == static_cast<size_t>(dim / 2),
               "needs an even head_dim and head_dim/2 values in 'rope_inv_freq'");
  node.input(0, DataType::kFloat, {kTokens, heads * dim});
  node.input(1, DataType::kFloat, {kTokens, kv_heads * dim});
  node.input(2, DataType::kFloat, {kTokens, kv_heads * dim});
  node.require(node.is_position(5), "needs the graph input 'position' as input 5");

  node.output(0, DataType::kFloat, {kTokens, heads * dim});
  const Sizes sizes{static_cast<size_t>(heads), static_cast<size_t>(kv_heads), static_cast<size_t>(dim),
                    static_cast<size_t>(window), static_cast<size_t>(sinks)};
  const KvRing ring{.kv_heads = sizes.kv_heads,
                    .dim = sizes.dim,
                    .window = sizes.window,
                    .sinks = sizes.sinks,
                    .block = kMaxBlock};
  const bool in_8_bits = !node.exact() && node.starts_at_zero(3) && node.starts_at_zero(4);
  const Shape kv_shape{kv_heads, sinks + window, dim};
  for (const size_t state : {size_t{3}, size_t{4}})
    node.resize_state(state, {kv_heads, file_sinks + file_window, dim}, kv_shape);
  if (in_8_bits) {
    node.update_packed_state(1, 3, kv_shape, ring.key_bytes(), StateForm::kOwn);
    node.update_packed_state(2, 4, kv_shape, ring.value_bytes(), StateForm::kOwn);
  } else {
    node.update_state(1, 3, kv_shape);
    node.update_state(2, 4, kv_shape);
  }

  Slots slots{};
  const auto angles = [&](uint64_t last_position) {
    // The same frequencies in every layer: computed once for all of them.
    std::string key = "rope " + std::to_string(last_position) + " ";
    const auto append = [&key](std::span<const float> values) {
      key.append(reinterpret_cast<const char*>(values.data()), values.size_bytes());
    };
    append({&scale, 1});
    append(inv_freq->floats);
    const Shape shape{kTokens, dim / 2};
    return node.shared(key, {shape, shape}, [&](std::unique_ptr<const Op>& op) {
      op = std::make_unique<RopeAngles>(inv_freq->floats, scale, last_position);
    });
  };
  const std::vector<size_t> own = angles(std::numeric_limits<uint64_t>::max());
  slots.cos = own[0];
  slots.sin = own[1];
  slots.q = node.temporary({kTokens, heads * dim});
  slots.k = node.temporary({kTokens, kv_heads * dim});
  if (sinks > 0) {
    // A sink key meets a query at most S + W - 1 positions on, the distances that the model was trained with.
    const std::vector<size_t> sink = angles(static_cast<uint64_t>(sinks + window - 1));
    slots.cos_sink = sink[0];
    slots.sin_sink = sink[1];
    slots.q_sink = node.temporary({kTokens, heads * dim});
  }
  if (in_8_bits) {
    const size_t overwritten = node.derived(SlidingWindowAttentionQ8::overwritten_bytes(ring));
    return std::make_unique<SlidingWindowAttentionQ8>(sizes, slots, ring, overwritten);
  }
  return std::make_unique<SlidingWindowAttention>(sizes, slots);
}

}  // namespace allmem::ops
