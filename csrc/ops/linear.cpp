// Gemm, MatMul and com.microsoft::MatMulNBits: y = x Wᵀ + b.
#include "kernels/kernels.h"
#include "ops/parallel.h"
#include "ops/registry.h"

namespace allmem::ops {

namespace {

using onnx::DataType;

constexpr size_t kRowGrain =
    16;  // rows of W that a thread takes at least, and a multiple of what kernels unroll

// y [T, N] = x [T, K] W [N, K]ᵀ + b [N]
class Linear : public Loop {
 public:
  Linear(const Shape& x, size_t K, size_t N) : x_(x), K_(K), N_(N) {}

  Items items(const RunContext& ctx) const override { return {N_, kRowGrain, rows(ctx) * K_}; }

  void run_items(const RunContext& ctx, size_t begin, size_t end, size_t) const override {
    const float* bias = ctx.has(2) ? ctx.in(2) : nullptr;
    ctx.kernels.linear_f32(ctx.in(0), ctx.in(1), bias, ctx.out(0), rows(ctx), K_, N_, begin, end);
  }

  size_t most_speculative(const RunContext&) const override {
    return N_ <= kOrderedRows ? kMostSpeculative : 1;
  }

 private:
  size_t rows(const RunContext& ctx) const { return x_(ctx.tokens) / K_; }

  Extent x_;
  size_t K_, N_;
};

// The same with W quantised: its rows are the items.
class QuantisedLinear : public Loop {
 public:
  QuantisedLinear(const Shape& x, const NBitsMatrix& shape, bool half_scales, bool half_zeros)
      : x_(x), shape_(shape), half_scales_(half_scales), half_zeros_(half_zeros) {}

  Items items(const RunContext& ctx) const override {
    return {shape_.rows, kRowGrain, rows(ctx) * shape_.cols};
  }

 protected:
  size_t rows(const RunContext& ctx) const { return x_(ctx.tokens) / shape_.cols; }

  // W where it is mapped.
  NBitsMatrix weights(const RunContext& ctx) const {
    NBitsMatrix w = shape_;
    w.packed = ctx.in<uint8_t>(1);
    if (half_scales_) {
      w.half_scales = ctx.in<uint16_t>(2);
    } else {
      w.scales = ctx.in(2);
    }
    if (half_zeros_) {
      w.half_zeros = ctx.in<uint16_t>(3);
    } else if (ctx.has(3)) {
      w.zero_points = ctx.in<uint8_t>(3);
    }
    return w;
  }

 private:
  Extent x_;
  NBitsMatrix shape_;  // pointers unset
  bool half_scales_, half_zeros_;
};

// Its product with float32.
class LinearNBits : public QuantisedLinear {
 public:
  using QuantisedLinear::QuantisedLinear;

  void run_items(const RunContext& ctx, size_t begin, size_t end, size_t) const override {
    const float* bias = ctx.has(5) ? ctx.in(5) : nullptr;
    ctx.kernels.linear_nbits(ctx.in(0), weights(ctx), bias, ctx.out(0), rows(ctx), begin, end);
  }

  size_t most_speculative(const RunContext&) const override { return 1; }  // sums in another order
};

// Activations in 8 bits, once for all the layers that read them. Outputs: codes, scales, sums.
class Quantise : public Op {
 public:
  // affine: for matrices in blocks of kAffineBlock, whose sums are those of affine_sums().
  Quantise(const Shape& x, size_t K, unsigned bits, bool affine)
      : x_(x), K_(K), bits_(bits), affine_(affine) {}

  void run(const RunContext& ctx) const override {
    const size_t groups = K_ / kQ8Group, sums = K_ / (affine_ ? kAffineBlock : kQ8Group);
    parallel(ctx, x_(ctx.tokens) / K_, 1, K_, [&](size_t begin, size_t end, size_t) {
      const Q8Rows rows{ctx.out<int8_t>(0) + begin * K_, ctx.out(1) + begin * groups,
                        ctx.out<int32_t>(2) + begin * sums};
      ctx.kernels.quantise(ctx.in(0) + begin * K_, end - begin, K_, bits_, rows);
      if (affine_) affine_sums(rows.codes, end - begin, K_, rows.sums);
    });
  }

 private:
  Extent x_;
  size_t K_;
  unsigned bits_;
  bool affine_;
};

// Its product with x as a step before has quantised it: symmetric blocks, or affine ones.
class LinearQ8 : public QuantisedLinear {
 public:
  // `codes`: number of the input that holds the codes of x; its scales and sums follow.
  LinearQ8(const Shape& x, const NBitsMatrix& shape, bool half_scales, bool affine, bool has_bias,
           size_t codes)
      : QuantisedLinear(x, shape, half_scales, affine), affine_(affine), has_bias_(has_bias), codes_(codes) {}

  void run_items(const RunContext& ctx, size_t begin, size_t end, size_t) const override {
    const NBitsMatrix w = weights(ctx);
    const Q8Rows x{const_cast<int8_t*>(ctx.in<int8_t>(codes_)), const_cast<float*>(ctx.in(codes_ + 1)),
                   const_cast<int32_t*>(ctx.in<int32_t>(codes_ + 2))};  // the products only read them
    const float* bias = has_bias_ ? ctx.in(5) : nullptr;
    if (affine_) {
      ctx.kernels.linear_affine(x, w, bias, ctx.out(0), rows(ctx), begin, end);
    } else {
      ctx.kernels.linear_q8(x, w, {.bias = bias}, ctx.out(0), rows(ctx), begin, end);
    }
  }

 private:
  bool affine_, has_bias_;
  size_t codes_;
};

// y [..., M, N] = a [..., M, K] b [K, N] or b [..., K, N]: a plain loop, for small products.
class MatMul : public Op {
 public:
  MatMul(Shape a, Shape b) : a_(std::move(a)), b_(std::move(b)) {}

  void run(const RunContext& ctx) const override {
    const size_t K = elements(b_, b_.size() - 2, b_.size() - 1, ctx.tokens);
    const size_t N = elements(b_, b_.size() - 1, b_.size(), ctx.tokens);
    const size_t rows = elements(a_, ctx.tokens) / K;
    const size_t rows_per_b = b_.size() == 2 ? rows : elements(a_, a_.size() - 2, a_.size() - 1, ctx.tokens);
    parallel(ctx, rows, 1, K * N, [&](size_t begin, size_t end, size_t) {
      for (size_t m = begin; m < end; ++m) {
        const float* a = ctx.in(0) + m * K;
        const float* b = ctx.in(1) + m / rows_per_b * K * N;
        float* y = ctx.out(0) + m * N;
        std::fill(y, y + N, 0.0f);
        for (size_t k = 0; k < K; ++k) {
          for (size_t n = 0; n < N; ++n) y[n] += a[k] * b[k * N + n];
        }
      }
    });
  }

 private:
  Shape a_, b_;
};

// The shape of x without its last dimension, which must be K, plus N.
Shape linear_shape(Binder& node, const Value& x, int64_t K, int64_t N) {
  if (x.shape.empty() || x.shape.back() != K || K < 1 || N < 1) {
    node.fail("multiplies '" + x.name + "' of shape " + to_string(x.shape) + " with a matrix of " +
              std::to_string(N) + " rows of " + std::to_string(K));
  }
  Shape shape = x.shape;
  shape.back() = N;
  return shape;
}

}  // namespace

MadeOp make_gemm(Binder& node) {
  node.expect_inputs(2, 3);
  const Value& x = node.input(0, DataType::kFloat);
  const Value& w = node.input(1, DataType::kFloat);
  if (node.int_attribute("transA", 0) != 0 || node.int_attribute("transB", 0) != 1 ||
      node.float_attribute("alpha", 1.0f) != 1.0f || node.float_attribute("beta", 1.0f) != 1.0f) {
    node.unsupported("has attributes other than transA=0, transB=1, alpha=1, beta=1");
  }
  node.require(x.shape.size() == 2 && w.shape.size() == 2 && !has_tokens(w.shape),
               "needs a matrix and a fixed matrix");
  const int64_t N = w.shape[0], K = w.shape[1];
  const Shape shape = linear_shape(node, x, K, N);
  if (node.has(2)) {
    const Value& bias = node.input(2, DataType::kFloat);
    node.require(bias.shape == Shape{N} || bias.shape == Shape({1, N}),
                 "needs a bias of one value for each output");
  }
  if (token_major(shape)) node.row_wise();
  node.output(0, DataType::kFloat, shape);
  return std::make_unique<Linear>(x.shape, static_cast<size_t>(K), static_cast<size_t>(N));
}

MadeOp make_matmul_nbits(Binder& node) {
  node.expect_inputs(3, 6);
  const Value& x = node.input(0, DataType::kFloat);
  const int64_t K = node.size_attribute("K", 1), N = node.size_attribute("N", 1);
  const int64_t block = node.size_attribute("block_size", 16), bits = node.int_attribute("bits", 4);
  node.int_attribute("accuracy_level", 0);  // how exact activations are is up to the kernels
  if ((bits != 4 && bits != 8) || block > 256 || (block & (block - 1)) != 0 || K % block != 0) {
    node.unsupported("has " + std::to_string(bits) + " bits in blocks of " + std::to_string(block) +
                     " for rows of " + std::to_string(K) +
                     "; it needs 4 or 8 bits, blocks of 16 to 256 that divide the row");
  }
  if (node.has(4)) node.unsupported("has a group index (g_idx)");
  const Shape shape = linear_shape(node, x, K, N);
  const int64_t blocks = K / block;
  node.input(1, DataType::kUint8, {N, blocks, block * bits / 8});
  node.constant_bytes(1);
  const Value& scales = node.float_or_half(2);
  node.require(scales.shape == Shape{N * blocks} || scales.shape == Shape({N, blocks}),
               "needs a scale for each block");
  bool half_zeros = false;
  if (node.has(3)) {
    half_zeros = node.input(3).type == DataType::kFloat16;
    const Value& zeros = half_zeros ? node.float_or_half(3) : node.input(3, DataType::kUint8);
    const int64_t row = half_zeros ? blocks : (blocks * bits + 7) / 8;
    node.require(zeros.shape == Shape{N * row} || zeros.shape == Shape({N, row}),
                 "needs a zero point for each block");
  }
  if (node.has(5)) node.input(5, DataType::kFloat, {N});
  if (token_major(shape)) node.row_wise();
  node.output(0, DataType::kFloat, shape);
  const bool half = scales.type == DataType::kFloat16;
  const NBitsMatrix w{.packed = nullptr,
                      .scales = nullptr,
                      .zero_points = nullptr,
                      .rows = static_cast<size_t>(N),
                      .cols = static_cast<size_t>(K),
                      .block = static_cast<size_t>(block),
                      .bits = static_cast<unsigned>(bits)};
  const bool affine = half_zeros && half && bits == 4 && w.block == kAffineBlock && w.cols % kQ8Group == 0;
  if ((!affine && (w.block % kQ8Group != 0 || node.has(3))) || node.exact())
    return std::make_unique<LinearNBits>(x.shape, w, half, half_zeros);
  Shape codes = x.shape, groups = x.shape, sums = x.shape;
  codes.back() = K / static_cast<int64_t>(sizeof(float));  // a float's room holds four codes
  groups.back() = K / static_cast<int64_t>(kQ8Group);
  sums.back() = K / static_cast<int64_t>(affine ? kAffineBlock : kQ8Group);
  const std::vector<size_t> quantised =
      node.shared_from(0, "8-bit codes for " + std::to_string(bits) + " bits" + (affine ? ", affine" : ""),
                       {codes, groups, sums}, [&](std::unique_ptr<const Op>& op) {
                         op = std::make_unique<Quantise>(x.shape, w.cols, w.bits, affine);
                       });
  return std::make_unique<LinearQ8>(x.shape, w, half, affine, node.has(5), quantised[0]);
}

MadeOp make_matmul(Binder& node) {
  node.expect_inputs(2, 2);
  const Value& a = node.input(0, DataType::kFloat);
  const Value& b = node.input(1, DataType::kFloat);
  const size_t rank = a.shape.size(), b_rank = b.shape.size();
  const bool batched =
      b_rank > 2 && rank == b_rank && std::equal(a.shape.begin(), a.shape.end() - 2, b.shape.begin());
  if (rank < 2 || (b_rank != 2 && !batched) || a.shape[rank - 1] != b.shape[b_rank - 2]) {
    node.fail("cannot multiply " + to_string(a.shape) + " and " + to_string(b.shape));
  }
  Shape shape = a.shape;
  shape.back() = b.shape.back();
  if (token_major(shape) && !has_tokens(b.shape)) node.row_wise();
  node.output(0, DataType::kFloat, shape);
  return std::make_unique<MatMul>(a.shape, b.shape);
}

}  // namespace allmem::ops
