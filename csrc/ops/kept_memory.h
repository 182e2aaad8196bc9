// Where a session keeps the test-time memory of one KV head, in float32 or in 8 bits, and how it is read,
// learns and is written there. The operator is made of either kind; an object lives for one call.
#pragma once

#include <algorithm>
#include <array>

#include "kernels/kernels.h"
#include "kernels/memory_q8.h"
#include "kernels/memory_state_q8.h"
#include "kernels/settle_memory.h"
#include "ops/memory_inputs.h"

namespace allmem::ops {

// The further inputs of allmem::TestTimeMemory, docs/format.md. An output's number is that of its state's
// input less kStateShift.
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

struct MemorySizes : MemoryHeads {
  size_t hidden, chunk;
  size_t matrix() const { return hidden * dim; }
  size_t row_scales() const { return 2 * hidden + dim; }
};

// n tokens from `from` on of this call, or that wait.
struct LearnedTokens {
  const float *k, *v, *eta;
  size_t stride, eta_stride;  // of k and v; floats from a token to the next
  size_t n;
};

// r = ||row of W_0|| / ||row of W||, and all else that follows from W, which has changed.
inline void rescale_rows(const RunContext& ctx, const MemorySizes& sizes, size_t kv, const MemoryHead& head) {
  ctx.kernels.memory_row_scales(head, ctx.in(kNormGate) + kv * sizes.hidden,
                                ctx.in(kNormUp) + kv * sizes.hidden, ctx.in(kNormDown) + kv * sizes.dim);
}

// All in float32, as the operator's function body defines it.
class ExactMemory {
 public:
  // What the operator knows of it: offset among derived data of r, [Hkv, h + h + D].
  struct Place {
    size_t row_scales;
  };
  static constexpr size_t kMostTokens = kMaxBlock;  // that learn() takes
  static constexpr bool kSameInAnyBlock = false;    // a token's results, to the last bit

  ExactMemory(const RunContext& ctx, const MemorySizes& sizes, const Place& place, size_t kv, float* scratch)
      : ctx_(ctx), sizes_(sizes), kv_(kv), scratch_(scratch) {
    const auto state = [&](size_t input) { return ctx.out(input - kStateShift) + kv * sizes.matrix(); };
    float* r = ctx.derived<float>(place.row_scales) + kv * sizes.row_scales();
    head_ = {.dim = sizes.dim,
             .hidden = sizes.hidden,
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
             .r_up = r + sizes.hidden,
             .r_down = r + 2 * sizes.hidden};
  }

  static size_t scratch_floats(const Kernels& kernels, const MemorySizes& sizes, size_t /*tokens*/) {
    return kernels.memory_scratch(sizes.dim, sizes.hidden);
  }

  void derive() { rescale_rows(ctx_, sizes_, kv_, head_); }

  // o_t = M_W(q̃_t) for the query heads that read this memory, of n tokens.
  void read(const float* q, float* y, size_t n) {
    for (size_t j = 0; j < sizes_.group(); ++j) {
      ctx_.kernels.memory_read(head_, q + j * sizes_.dim, sizes_.q_stride(), y + j * sizes_.dim,
                               sizes_.q_stride(), n, scratch_);
    }
  }

  void learn(const LearnedTokens& tokens) {
    ctx_.kernels.memory_accumulate(head_, tokens.k, tokens.stride, tokens.v, tokens.stride, tokens.eta,
                                   tokens.eta_stride, tokens.n, scratch_);
  }

  void write(float beta_mean) {
    ctx_.kernels.memory_write(head_, beta_mean);
    derive();
  }

  void settle() {
    if (settle_memory(ctx_.kernels, head_)) derive();
  }

  void close() {}

 private:
  const RunContext& ctx_;
  const MemorySizes& sizes_;
  size_t kv_;
  float* scratch_;
  MemoryHead head_;
};

// In 8 bits, and read from an 8-bit copy.
class FastMemory {
 public:
  struct Place {
    size_t row_scales, copies;            // offsets among derived data
    std::array<const float*, 3> initial;  // W_0 of all KV heads; null for zeros
  };
  static constexpr size_t kMostTokens = kGradientBlock;
  static constexpr bool kSameInAnyBlock = true;

  FastMemory(const RunContext& ctx, const MemorySizes& sizes, const Place& place, size_t kv, float* scratch)
      : ctx_(ctx),
        sizes_(sizes),
        kv_(kv),
        shared_(scratch + MemoryStateQ8::scratch_floats(sizes.dim, sizes.hidden)),
        copy_(sizes.dim, sizes.hidden,
              ctx.derived<std::byte>(place.copies) +
                  static_cast<size_t>(kv * MemoryQ8::bytes(sizes.dim, sizes.hidden))),
        state_(ctx.kernels, sizes.dim, sizes.hidden, matrices(ctx, sizes, place, kv),
               ctx.derived<float>(place.row_scales) + kv * sizes.row_scales(), scratch, shared_) {}

  static size_t scratch_floats(const Kernels& kernels, const MemorySizes& sizes, size_t tokens) {
    return MemoryStateQ8::scratch_floats(sizes.dim, sizes.hidden) +
           std::max(MemoryStateQ8::shared_floats(kernels, sizes.dim, sizes.hidden),
                    MemoryQ8::scratch_floats(sizes.dim, sizes.hidden, tokens, sizes.group()));
  }

  void derive() {
    rescale_rows(ctx_, sizes_, kv_, state_.weights());
    copy_.remake(ctx_.kernels, state_.weights(), shared_);
  }

  void read(const float* q, float* y, size_t n) {
    copy_.read(ctx_.kernels, q, y, n, sizes_.group(), sizes_.q_stride(), shared_);
  }

  void learn(const LearnedTokens& tokens) {
    state_.learn(tokens.k, tokens.stride, tokens.v, tokens.stride, tokens.eta, tokens.eta_stride, tokens.n);
  }

  void write(float beta_mean) {
    state_.write(beta_mean);
    derive();
  }

  void settle() {
    if (state_.settle()) derive();
  }

  void close() { state_.close(); }

 private:
  static std::array<MemoryStateQ8::Matrix, 3> matrices(const RunContext& ctx, const MemorySizes& sizes,
                                                       const Place& place, size_t kv) {
    const size_t bytes = ValuesQ8::bytes(sizes.matrix());
    std::array<MemoryStateQ8::Matrix, 3> matrices;
    for (size_t i = 0; i < matrices.size(); ++i) {
      const auto state = [&](size_t input) {
        return ctx.out<std::byte>(input + i - kStateShift) + kv * bytes;
      };
      const float* initial = place.initial[i];
      matrices[i] = {.initial = initial == nullptr ? nullptr : initial + kv * sizes.matrix(),
                     .weights = state(kWGate),
                     .momentum = state(kSGate),
                     .gradient = state(kGGate)};
    }
    return matrices;
  }

  const RunContext& ctx_;
  const MemorySizes& sizes_;
  size_t kv_;
  float* shared_;
  MemoryQ8 copy_;
  MemoryStateQ8 state_;
};

}  // namespace allmem::ops
