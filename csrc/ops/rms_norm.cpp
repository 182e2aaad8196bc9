// RMSNormalization over the last axis.
#include "kernels/kernels.h"
#include "ops/parallel.h"
#include "ops/registry.h"

namespace allmem::ops {

namespace {

using onnx::DataType;

class RmsNorm : public Op {
 public:
  RmsNorm(const Shape& shape, float epsilon)
      : count_(shape), cols_(static_cast<size_t>(shape.back())), epsilon_(epsilon) {}

  void run(const RunContext& ctx) const override {
    parallel(ctx, count_(ctx.tokens) / cols_, 1, 2 * cols_, [&](size_t begin, size_t end, size_t) {
      ctx.kernels.rms_norm(ctx.in(0) + begin * cols_, ctx.in(1), ctx.out(0) + begin * cols_, end - begin,
                           cols_, epsilon_);
    });
  }

 private:
  Extent count_;
  size_t cols_;
  float epsilon_;
};

}  // namespace

MadeOp make_rms_norm(Binder& node) {
  node.expect_inputs(2, 2);
  const Value& x = node.input(0, DataType::kFloat);
  const Value& weight = node.input(1, DataType::kFloat);
  const size_t rank = x.shape.size();
  const int64_t axis = node.int_attribute("axis", -1);
  const float epsilon = node.float_attribute("epsilon", 1e-5f);
  if (node.int_attribute("stash_type", 1) != 1) node.unsupported("computes in a type other than float32");
  node.require(rank >= 1 && x.shape.back() >= 1, "needs a last axis of fixed length");
  if (node.axis(axis, rank) != rank - 1) node.unsupported("normalises over more than the last axis");
  node.require(!weight.shape.empty() && weight.shape.back() == x.shape.back() &&
                   elements(weight.shape, 1) == static_cast<size_t>(x.shape.back()) &&
                   !has_tokens(weight.shape),
               "needs a weight for each channel of the last axis");
  if (token_major(x.shape)) node.row_wise();
  node.output(0, DataType::kFloat, x.shape);
  return std::make_unique<RmsNorm>(x.shape, epsilon);
}

}  // namespace allmem::ops
