// Elementwise functions of one tensor.
#include <cmath>

#include "kernels/kernels.h"
#include "ops/parallel.h"
#include "ops/registry.h"

namespace allmem::ops {

namespace {

using Function = void (*)(const Kernels& kernels, const float* x, float* y, size_t n);

template <float (*F)(float)>
void each(const Kernels&, const float* x, float* y, size_t n) {
  for (size_t i = 0; i < n; ++i) y[i] = F(x[i]);
}

float negated(float x) { return -x; }
float exponential(float x) { return std::exp(x); }
float square_root(float x) { return std::sqrt(x); }
float reciprocal(float x) { return 1.0f / x; }
float hyperbolic_tangent(float x) { return std::tanh(x); }
float rectified(float x) { return x > 0 || std::isnan(x) ? x : 0.0f; }

struct Named {
  std::string_view op_type;
  Function function;
};

constexpr Named kFunctions[] = {
    {"Sigmoid", [](const Kernels& kernels, const float* x, float* y, size_t n) { kernels.sigmoid(x, y, n); }},
    {"Swish", [](const Kernels& kernels, const float* x, float* y, size_t n) { kernels.silu(x, y, n); }},
    {"Softplus",
     [](const Kernels& kernels, const float* x, float* y, size_t n) { kernels.softplus(x, y, n); }},
    {"Neg", each<negated>},
    {"Exp", each<exponential>},
    {"Sqrt", each<square_root>},
    {"Reciprocal", each<reciprocal>},
    {"Tanh", each<hyperbolic_tangent>},
    {"Relu", each<rectified>},
};

class Unary : public Op {
 public:
  Unary(const Shape& shape, Function function) : count_(shape), function_(function) {}

  void run(const RunContext& ctx) const override {
    constexpr size_t kCost = 8;  // in multiply-adds
    parallel(ctx, count_(ctx.tokens), 64, kCost, [&](size_t begin, size_t end, size_t) {
      function_(ctx.kernels, ctx.in(0) + begin, ctx.out(0) + begin, end - begin);
    });
  }

 private:
  Extent count_;
  Function function_;
};

}  // namespace

MadeOp make_unary(Binder& node) {
  node.expect_inputs(1, 1);
  const Value& x = node.input(0, onnx::DataType::kFloat);
  if (node.node().op_type == "Swish" && node.float_attribute("alpha", 1.0f) != 1.0f) {
    node.unsupported("has an alpha other than 1");
  }
  if (token_major(x.shape)) node.row_wise();
  node.output(0, onnx::DataType::kFloat, x.shape);
  for (const Named& named : kFunctions) {
    if (named.op_type == node.node().op_type) return std::make_unique<Unary>(x.shape, named.function);
  }
  node.unsupported("is not an elementwise function that this runtime has");
}

}  // namespace allmem::ops
