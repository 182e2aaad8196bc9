// Add, Sub, Mul, Div and Pow with NumPy broadcasting, and two fusions: silu(x) ⊙ y, and x ⊙ sigmoid(x) =
// silu(x).
#include <algorithm>
#include <array>
#include <cmath>

#include "kernels/kernels.h"
#include "ops/parallel.h"
#include "ops/registry.h"

namespace allmem::ops {

namespace {

using onnx::DataType;

// y[i] = f(a[i * a_step], b[i * b_step]); a step is 0 or 1.
using Row = void (*)(const Kernels& kernels, const float* a, size_t a_step, const float* b, size_t b_step,
                     float* y, size_t n);

template <float (*F)(float, float)>
void row_of(const Kernels&, const float* a, size_t a_step, const float* b, size_t b_step, float* y,
            size_t n) {
  for (size_t i = 0; i < n; ++i) y[i] = F(a[i * a_step], b[i * b_step]);
}

float sum(float a, float b) { return a + b; }
float difference(float a, float b) { return a - b; }
float product(float a, float b) { return a * b; }
float quotient(float a, float b) { return a / b; }
float power(float a, float b) { return b == 2.0f ? a * a : std::pow(a, b); }

void add_row(const Kernels& kernels, const float* a, size_t a_step, const float* b, size_t b_step, float* y,
             size_t n) {
  if (a_step == 1 && b_step == 1) return kernels.add(a, b, y, n);
  row_of<sum>(kernels, a, a_step, b, b_step, y, n);
}

void mul_row(const Kernels& kernels, const float* a, size_t a_step, const float* b, size_t b_step, float* y,
             size_t n) {
  if (a_step == 1 && b_step == 1) return kernels.mul(a, b, y, n);
  row_of<product>(kernels, a, a_step, b, b_step, y, n);
}

void silu_mul_row(const Kernels& kernels, const float* a, size_t, const float* b, size_t, float* y,
                  size_t n) {
  kernels.silu_mul(a, b, y, n);
}

void silu_row(const Kernels& kernels, const float* a, size_t, const float*, size_t, float* y, size_t n) {
  kernels.silu(a, y, n);
}

// An output seen as rows of contiguous values, with the step of each input along every axis (0 where
// broadcast).
struct Axes {
  std::array<size_t, kMaxRank> size{}, a_step{}, b_step{};
  size_t rank = 0;

  // Neighbouring axes over which both inputs are contiguous, or both broadcast, become one.
  void push(size_t n, size_t a, size_t b) {
    if (n == 1) return;
    if (rank > 0) {
      const size_t last = rank - 1;
      if (a_step[last] == a * n && b_step[last] == b * n) {
        size[last] *= n;
        a_step[last] = a;
        b_step[last] = b;
        return;
      }
    }
    size[rank] = n;
    a_step[rank] = a;
    b_step[rank] = b;
    ++rank;
  }
};

class Binary : public Op {
 public:
  // Shapes of equal rank.
  Binary(Shape a, Shape b, Shape y, Row row)
      : a_(std::move(a)), b_(std::move(b)), y_(std::move(y)), count_(y_), one_(merged(1)), row_(row) {}

  void run(const RunContext& ctx) const override {
    const Axes many = ctx.tokens == 1 ? Axes() : merged(ctx.tokens);
    const Axes& axes = ctx.tokens == 1 ? one_ : many;
    const size_t n = axes.rank == 0 ? 1 : axes.size[axes.rank - 1];
    const size_t a_step = axes.rank == 0 ? 1 : axes.a_step[axes.rank - 1];
    const size_t b_step = axes.rank == 0 ? 1 : axes.b_step[axes.rank - 1];
    const size_t rows = count_(ctx.tokens) / n;
    if (rows == 1) {
      parallel(ctx, n, 64, 1, [&](size_t begin, size_t end, size_t) {
        row_(ctx.kernels, ctx.in(0) + begin * a_step, a_step, ctx.in(1) + begin * b_step, b_step,
             ctx.out(0) + begin, end - begin);
      });
      return;
    }
    parallel(ctx, rows, 1, n, [&](size_t begin, size_t end, size_t) {
      for (size_t r = begin; r < end; ++r) {
        size_t a = 0, b = 0, rest = r;
        for (size_t axis = axes.rank - 1; axis-- > 0; rest /= axes.size[axis]) {
          a += rest % axes.size[axis] * axes.a_step[axis];
          b += rest % axes.size[axis] * axes.b_step[axis];
        }
        row_(ctx.kernels, ctx.in(0) + a, a_step, ctx.in(1) + b, b_step, ctx.out(0) + r * n, n);
      }
    });
  }

 private:
  Axes merged(size_t tokens) const {
    Axes axes;
    for (size_t i = 0; i < y_.size(); ++i) {
      const auto step = [&](const Shape& shape) {
        return shape[i] == 1 && y_[i] != 1 ? 0 : elements(shape, i + 1, shape.size(), tokens);
      };
      axes.push(elements(y_, i, i + 1, tokens), step(a_), step(b_));
    }
    return axes;
  }

  Shape a_, b_, y_;
  Extent count_;
  Axes one_;  // for one token
  Row row_;
};

Row row_for(std::string_view op_type) {
  if (op_type == "Add") return add_row;
  if (op_type == "Sub") return row_of<difference>;
  if (op_type == "Mul") return mul_row;
  if (op_type == "Div") return row_of<quotient>;
  return row_of<power>;
}

Shape padded(Shape shape, size_t rank) {
  shape.insert(shape.begin(), rank - shape.size(), 1);
  return shape;
}

// A Mul whose operand is a Swish, or the Sigmoid of the other operand, takes it in. Shapes are equal.
Row fuse(Binder& node) {
  for (const size_t i : {size_t{0}, size_t{1}}) {
    if (i == 0 && node.absorbable(0, "Swish") != kNoValue) {
      node.absorb(0, "Swish");
      return silu_mul_row;
    }
    if (node.absorbable(i, "Sigmoid") == node.input_id(1 - i)) {
      node.absorb(i, "Sigmoid");
      return silu_row;
    }
  }
  return mul_row;
}

}  // namespace

MadeOp make_binary(Binder& node) {
  node.expect_inputs(2, 2);
  const Value& a = node.input(0, DataType::kFloat);
  const Value& b = node.input(1, DataType::kFloat);
  const size_t rank = std::max(a.shape.size(), b.shape.size());
  const Shape a_shape = padded(a.shape, rank), b_shape = padded(b.shape, rank);
  Shape shape = a_shape;
  for (size_t i = 0; i < rank; ++i) {
    if (a_shape[i] != b_shape[i] && a_shape[i] != 1 && b_shape[i] != 1) {
      node.fail("cannot broadcast " + to_string(a.shape) + " and " + to_string(b.shape));
    }
    if (a_shape[i] == 1) shape[i] = b_shape[i];
  }
  if (token_major(shape)) node.row_wise();
  node.output(0, DataType::kFloat, shape);
  Row row = row_for(node.node().op_type);
  if (row == mul_row && a_shape == b_shape) row = fuse(node);
  return std::make_unique<Binary>(a_shape, b_shape, shape, row);
}

}  // namespace allmem::ops
