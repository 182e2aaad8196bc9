// Einsum of one form, "thk,hnk->thn": every head has a matrix of its own. And DequantizeLinear, which such
// matrices come through when they have 8 bits.
#include <algorithm>
#include <array>
#include <set>

#include "kernels/kernels.h"
#include "kernels/rows_q8.h"
#include "ops/parallel.h"
#include "ops/registry.h"

namespace allmem::ops {

namespace {

using onnx::DataType;

struct Sizes {
  size_t heads, N, K;
};

// y [T, H, N] = x [T, H, K] times W [H, N, K], transposed.
class PerHead : public Op {
 public:
  explicit PerHead(const Sizes& sizes) : sizes_(sizes) {}

  void run(const RunContext& ctx) const override {
    const auto [heads, N, K] = sizes_;
    parallel(ctx, heads, 1, ctx.tokens * N * K, [&](size_t begin, size_t end, size_t worker) {
      for (size_t head = begin; head < end; ++head) run_head(ctx, head, ctx.scratch(worker));
    });
  }

  size_t scratch_floats(const Kernels& /*kernels*/, size_t tokens) const override {
    Scratch scratch(nullptr);
    scratch.floats(tokens * (sizes_.K + sizes_.N));
    count_scratch(scratch, tokens);
    return scratch.used();
  }

 protected:
  // y [T, N] = x [T, K] times the matrix of a head.
  virtual void multiply(const RunContext& ctx, size_t head, const float* x, float* y,
                        Scratch& scratch) const = 0;
  // Takes what multiply() takes.
  virtual void count_scratch(Scratch& /*scratch*/, size_t /*tokens*/) const {}

  Sizes sizes_;

 private:
  void run_head(const RunContext& ctx, size_t head, float* memory) const {
    const auto [heads, N, K] = sizes_;
    const float* from = ctx.in(0) + head * K;
    float* to = ctx.out(0) + head * N;
    Scratch scratch(memory);
    if (ctx.tokens == 1) return multiply(ctx, head, from, to, scratch);
    float* x = scratch.floats(ctx.tokens * K);
    float* y = scratch.floats(ctx.tokens * N);
    for (size_t t = 0; t < ctx.tokens; ++t) std::copy_n(from + t * heads * K, K, x + t * K);
    multiply(ctx, head, x, y, scratch);
    for (size_t t = 0; t < ctx.tokens; ++t) std::copy_n(y + t * N, N, to + t * heads * N);
  }
};

// With W in float32.
class PerHeadFloat : public PerHead {
 public:
  using PerHead::PerHead;

  void multiply(const RunContext& ctx, size_t head, const float* x, float* y, Scratch&) const override {
    const auto [heads, N, K] = sizes_;
    ctx.kernels.linear_f32(x, ctx.in(1) + head * N * K, nullptr, y, ctx.tokens, K, N, 0, N);
  }

  size_t most_speculative(const RunContext&) const override {
    return sizes_.N <= kOrderedRows ? kMostSpeculative : 1;
  }
};

// With W in 8 bits. Where x is to have 8 bits as well, `in_8_bits`, blocks are of whole groups.
class PerHeadNBits : public PerHead {
 public:
  PerHeadNBits(const Sizes& sizes, const Binder::Codes& codes, bool in_8_bits)
      : PerHead(sizes), codes_(codes), in_8_bits_(in_8_bits) {}

  void multiply(const RunContext& ctx, size_t head, const float* x, float* y,
                Scratch& scratch) const override {
    const auto [heads, N, K] = sizes_;
    const NBitsMatrix w{.packed = ctx.in<uint8_t>(1) + head * N * K,
                        .scales = ctx.in(codes_.scales) + head * N * (K / codes_.block),
                        .zero_points = nullptr,
                        .rows = N,
                        .cols = K,
                        .block = codes_.block,
                        .bits = 8};
    if (!in_8_bits_) return ctx.kernels.linear_nbits(x, w, nullptr, y, ctx.tokens, 0, N);
    const Q8Rows rows = scratch.q8(ctx.tokens, K);
    ctx.kernels.quantise(x, ctx.tokens, K, w.bits, rows);
    ctx.kernels.linear_q8(rows, w, {}, y, ctx.tokens, 0, N);
  }

  void count_scratch(Scratch& scratch, size_t tokens) const override {
    if (in_8_bits_) scratch.q8(tokens, sizes_.K);
  }

  size_t most_speculative(const RunContext&) const override {
    return in_8_bits_ ? kMostSpeculative : 1;  // sums in another order
  }

 private:
  Binder::Codes codes_;
  bool in_8_bits_;
};

// "thk,hnk->thn", in whichever letters.
bool is_per_head(std::string_view equation) {
  std::string e(equation);
  std::erase(e, ' ');
  return e.size() == 12 && e[3] == ',' && e.substr(7, 2) == "->" &&
         std::set{e[0], e[1], e[2], e[5]}.size() == 4 && std::set{e[0], e[1], e[2], e[5]}.count('.') == 0 &&
         e == std::string{e[0], e[1], e[2], ',', e[1], e[5], e[2], '-', '>', e[0], e[1], e[5]};
}

}  // namespace

MadeOp make_einsum(Binder& node) {
  node.expect_inputs(2, 2);
  const onnx::Attribute* equation = node.attribute("equation", onnx::Attribute::Type::kString);
  if (equation == nullptr || !is_per_head(equation->s))
    node.unsupported("has another equation than \"thk,hnk->thn\", a matrix for each head");
  const Value& x = node.input(0, DataType::kFloat);
  const std::optional<Binder::Codes> codes = node.codes_of(1);
  const Value& w = node.input(1, codes ? DataType::kUint8 : DataType::kFloat);
  node.require(w.shape.size() == 3 && !has_tokens(w.shape), "needs a fixed matrix for each head");
  const int64_t heads = w.shape[0], N = w.shape[1], K = w.shape[2];
  if (x.shape != Shape{kTokens, heads, K})
    node.fail("multiplies '" + x.name + "' of shape " + to_string(x.shape) + " with matrices of shape " +
              to_string(w.shape));
  node.row_wise();
  node.output(0, DataType::kFloat, {kTokens, heads, N});
  const Sizes sizes{static_cast<size_t>(heads), static_cast<size_t>(N), static_cast<size_t>(K)};
  if (!codes) return std::make_unique<PerHeadFloat>(sizes);
  return std::make_unique<PerHeadNBits>(sizes, *codes, codes->block % kQ8Group == 0 && !node.exact());
}

MadeOp make_dequantize_linear(Binder& node) {
  node.expect_inputs(3, 3);
  const Value& codes = node.input(0, DataType::kUint8);
  const size_t rank = codes.shape.size();
  const int64_t block = node.int_attribute("block_size", 0), axis = node.int_attribute("axis", 1);
  if (node.int_attribute("output_dtype", 0) > 1 || rank < 2 || block < 16 || block > 256 ||
      (block & (block - 1)) != 0 || node.axis(axis, rank) != rank - 1 || codes.shape.back() < block ||
      codes.shape.back() % block != 0) {
    node.unsupported(
        "is not one of 8-bit codes in blocks of 16 to 256 that divide the last axis, which makes float32");
  }
  Shape blocks = codes.shape;
  blocks.back() /= block;
  node.constant_bytes(0);
  node.input(1, DataType::kFloat, blocks);
  node.constant_bytes(1);
  node.input(2, DataType::kUint8, blocks);
  const std::span<const std::byte> zeros = node.constant_bytes(2);
  if (std::any_of(zeros.begin(), zeros.end(), [](std::byte zero) { return zero != std::byte{kQ8Zero}; }))
    node.unsupported("has other zero points than 128");
  node.view_codes(0, 0, 1);
  return nullptr;
}

}  // namespace allmem::ops
