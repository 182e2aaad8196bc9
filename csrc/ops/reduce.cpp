// ReduceSum, ReduceMean and Softmax over the last axis.
#include <algorithm>
#include <cmath>

#include "ops/parallel.h"
#include "ops/registry.h"

namespace allmem::ops {

namespace {

using onnx::DataType;

class Reduce : public Op {
 public:
  Reduce(Shape shape, bool mean) : shape_(std::move(shape)), mean_(mean) {}

  void run(const RunContext& ctx) const override {
    const auto cols = static_cast<size_t>(shape_.back());
    const size_t rows = elements(shape_, ctx.tokens) / cols;
    const float* x = ctx.in(0);
    for (size_t r = 0; r < rows; ++r, x += cols) {
      double sum = 0;
      for (size_t c = 0; c < cols; ++c) sum += double{x[c]};
      ctx.out(0)[r] = static_cast<float>(mean_ ? sum / static_cast<double>(cols) : sum);
    }
  }

 private:
  Shape shape_;
  bool mean_;
};

class Softmax : public Op {
 public:
  explicit Softmax(Shape shape) : shape_(std::move(shape)) {}

  void run(const RunContext& ctx) const override {
    const auto cols = static_cast<size_t>(shape_.back());
    const size_t rows = elements(shape_, ctx.tokens) / cols;
    for (size_t r = 0; r < rows; ++r) {
      const float* x = ctx.in(0) + r * cols;
      float* y = ctx.out(0) + r * cols;
      const float most = *std::max_element(x, x + cols);
      double sum = 0;
      for (size_t c = 0; c < cols; ++c) sum += double{y[c] = std::exp(x[c] - most)};
      for (size_t c = 0; c < cols; ++c) y[c] = static_cast<float>(double{y[c]} / sum);
    }
  }

 private:
  Shape shape_;
};

// The float32 input 0, with a last axis of fixed length.
const Value& rows_of(Binder& node) {
  const Value& x = node.input(0, DataType::kFloat);
  node.require(!x.shape.empty() && x.shape.back() >= 1, "needs a last axis of fixed length");
  if (token_major(x.shape)) node.row_wise();
  return x;
}

}  // namespace

MadeOp make_reduce(Binder& node) {
  node.expect_inputs(1, 2);
  const Value& x = rows_of(node);
  node.int_attribute("noop_with_empty_axes", 0);  // without effect, as an axis must be named
  const bool keep = node.int_attribute("keepdims", 1) != 0;
  const std::vector<int64_t> axes = node.has(1) ? node.constant_ints(1) : std::vector<int64_t>();
  if (axes.size() != 1 || node.axis(axes[0], x.shape.size()) != x.shape.size() - 1) {
    node.unsupported("reduces axes other than the last");
  }
  Shape shape = x.shape;
  shape.pop_back();
  if (keep) shape.push_back(1);
  node.output(0, DataType::kFloat, shape);
  return std::make_unique<Reduce>(x.shape, node.node().op_type == "ReduceMean");
}

MadeOp make_softmax(Binder& node) {
  node.expect_inputs(1, 1);
  const Value& x = rows_of(node);
  if (node.axis(node.int_attribute("axis", -1), x.shape.size()) != x.shape.size() - 1) {
    node.unsupported("works along an axis other than the last");
  }
  node.output(0, DataType::kFloat, x.shape);
  return std::make_unique<Softmax>(x.shape);
}

}  // namespace allmem::ops
