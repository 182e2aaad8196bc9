// Operators that move values without computing: Transpose, Concat, Split, Slice, and Cast between number
// types.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "ops/registry.h"

namespace allmem::ops {

namespace {

using onnx::DataType;

size_t element_bytes(Binder& node, const Value& x) {
  const size_t bits = onnx::type_bits(x.type);
  if (bits % 8 != 0) node.unsupported("moves " + type_name(x.type) + ", which is smaller than a byte");
  return bits / 8;
}

class Transpose : public Op {
 public:
  Transpose(Shape shape, std::vector<size_t> permutation, size_t element)
      : shape_(std::move(shape)), permutation_(std::move(permutation)), element_(element) {}

  void run(const RunContext& ctx) const override {
    const size_t rank = shape_.size();
    std::array<size_t, kMaxRank> size{}, step{}, index{};
    for (size_t i = 0; i < rank; ++i) {
      size[i] = elements(shape_, permutation_[i], permutation_[i] + 1, ctx.tokens);
      step[i] = elements(shape_, permutation_[i] + 1, rank, ctx.tokens);
    }
    const size_t count = elements(shape_, ctx.tokens);
    for (size_t i = 0, from = 0; i < count; ++i) {
      std::memcpy(ctx.out<std::byte>(0) + i * element_, ctx.in<std::byte>(0) + from * element_, element_);
      for (size_t axis = rank; axis-- > 0;) {  // the next index, as an odometer counts
        from += step[axis];
        if (++index[axis] < size[axis]) break;
        from -= step[axis] * size[axis];
        index[axis] = 0;
      }
    }
  }

 private:
  Shape shape_;
  std::vector<size_t> permutation_;
  size_t element_;
};

// Copies pieces between one joined tensor and several along an axis: Concat, and backwards Split.
class Pieces : public Op {
 public:
  Pieces(std::vector<Shape> pieces, size_t axis, size_t element, bool join)
      : pieces_(std::move(pieces)), axis_(axis), element_(element), join_(join) {}

  void run(const RunContext& ctx) const override {
    const Shape& first = pieces_.front();
    const size_t outer = elements(first, 0, axis_, ctx.tokens);
    size_t joined_row = 0;
    for (const Shape& piece : pieces_)
      joined_row += elements(piece, axis_, piece.size(), ctx.tokens) * element_;
    size_t offset = 0;
    for (size_t i = 0; i < pieces_.size(); ++i) {
      const size_t row = elements(pieces_[i], axis_, pieces_[i].size(), ctx.tokens) * element_;
      for (size_t o = 0; o < outer; ++o) {
        if (join_) {
          std::memcpy(ctx.out<std::byte>(0) + o * joined_row + offset, ctx.in<std::byte>(i) + o * row, row);
        } else if (ctx.step->outputs[i] != kNoValue) {
          std::memcpy(ctx.out<std::byte>(i) + o * row, ctx.in<std::byte>(0) + o * joined_row + offset, row);
        }
      }
      offset += row;
    }
  }

 private:
  std::vector<Shape> pieces_;
  size_t axis_, element_;
  bool join_;
};

// y = x[start : start + count * step : step] along one axis.
class Slice : public Op {
 public:
  Slice(Shape shape, size_t axis, size_t start, size_t step, size_t count, size_t element)
      : shape_(std::move(shape)), axis_(axis), start_(start), step_(step), count_(count), element_(element) {}

  void run(const RunContext& ctx) const override {
    const size_t outer = elements(shape_, 0, axis_, ctx.tokens);
    const size_t row = elements(shape_, axis_ + 1, shape_.size(), ctx.tokens) * element_;
    const auto length = static_cast<size_t>(shape_[axis_]);
    std::byte* y = ctx.out<std::byte>(0);
    for (size_t o = 0; o < outer; ++o) {
      for (size_t i = 0; i < count_; ++i, y += row) {
        std::memcpy(y, ctx.in<std::byte>(0) + (o * length + start_ + i * step_) * row, row);
      }
    }
  }

 private:
  Shape shape_;
  size_t axis_, start_, step_, count_, element_;
};

template <class To, class From>
void convert(const RunContext& ctx, size_t n) {
  const From* x = ctx.in<From>(0);
  To* y = ctx.out<To>(0);
  for (size_t i = 0; i < n; ++i) {
    if constexpr (std::is_floating_point_v<From> && std::is_integral_v<To>) {
      // Out of range, and NaN, have no defined integer: 0.
      y[i] = std::fabs(x[i]) < (sizeof(To) == 4 ? 0x1p31f : 0x1p63f) ? static_cast<To>(x[i]) : 0;
    } else {
      y[i] = static_cast<To>(x[i]);
    }
  }
}

class Cast : public Op {
 public:
  using Convert = void (*)(const RunContext& ctx, size_t n);
  Cast(Shape shape, Convert convert) : shape_(std::move(shape)), convert_(convert) {}
  void run(const RunContext& ctx) const override { convert_(ctx, elements(shape_, ctx.tokens)); }

 private:
  Shape shape_;
  Convert convert_;
};

template <class To>
Cast::Convert convert_from(DataType type) {
  if (type == DataType::kFloat) return convert<To, float>;
  if (type == DataType::kInt32) return convert<To, int32_t>;
  if (type == DataType::kInt64) return convert<To, int64_t>;
  return nullptr;
}

bool after_tokens(const Shape& shape, size_t axis) { return token_major(shape) && axis > *token_axis(shape); }

}  // namespace

MadeOp make_transpose(Binder& node) {
  node.expect_inputs(1, 1);
  const Value& x = node.input(0);
  const size_t rank = x.shape.size();
  std::vector<size_t> permutation;
  if (const std::vector<int64_t>* perm = node.ints_attribute("perm")) {
    for (const int64_t axis : *perm) permutation.push_back(node.axis(axis, rank));
  } else {
    for (size_t i = rank; i-- > 0;) permutation.push_back(i);
  }
  std::vector<bool> seen(rank, false);
  for (const size_t axis : permutation) seen[axis] = true;
  node.require(
      permutation.size() == rank && std::count(seen.begin(), seen.end(), true) == static_cast<long>(rank),
      "has a 'perm' that is not a permutation of the axes");
  Shape shape;
  for (const size_t axis : permutation) shape.push_back(x.shape[axis]);
  if (token_major(shape)) node.row_wise();
  node.output(0, x.type, shape);
  return std::make_unique<Transpose>(x.shape, permutation, element_bytes(node, x));
}

MadeOp make_concat(Binder& node) {
  node.expect_inputs(1, 4096);
  const Value& first = node.input(0);
  const size_t axis = node.axis(node.int_attribute("axis"), first.shape.size());
  Shape shape = first.shape;
  shape[axis] = 0;
  std::vector<Shape> pieces;
  for (size_t i = 0; i < node.input_count(); ++i) {
    const Value& piece = node.input(i, first.type);
    Shape expected = first.shape;
    if (piece.shape.size() == expected.size()) expected[axis] = piece.shape[axis];
    if (piece.shape != expected)
      node.fail("cannot join " + to_string(first.shape) + " and " + to_string(piece.shape));
    if (piece.shape[axis] == kTokens) node.unsupported("concatenates along the token axis");
    shape[axis] += piece.shape[axis];
    pieces.push_back(piece.shape);
  }
  if (after_tokens(shape, axis)) node.row_wise();
  node.output(0, first.type, shape);
  return std::make_unique<Pieces>(std::move(pieces), axis, element_bytes(node, first), /*join=*/true);
}

MadeOp make_split(Binder& node) {
  node.expect_inputs(1, 2);
  const Value& x = node.input(0);
  const size_t axis = node.axis(node.int_attribute("axis", 0), x.shape.size());
  const auto count = static_cast<int64_t>(node.output_count());
  const int64_t stated = node.int_attribute("num_outputs", count), length = x.shape[axis];
  if (length == kTokens) node.unsupported("splits along the token axis");
  std::vector<int64_t> sizes;
  if (node.has(1)) {
    sizes = node.constant_ints(1);
  } else {
    const int64_t size = (length + count - 1) / count;  // the last piece may be smaller
    for (int64_t i = 0; i < count; ++i) sizes.push_back(std::min(size, length - i * size));
  }
  int64_t rest = length;
  for (const int64_t size : sizes) {
    node.require(size >= 1 && size <= rest, "has piece sizes that do not add up");
    rest -= size;
  }
  node.require(rest == 0 && static_cast<int64_t>(sizes.size()) == count && stated == count,
               "has piece sizes that do not add up");
  std::vector<Shape> pieces(sizes.size(), x.shape);
  for (size_t i = 0; i < pieces.size(); ++i) {
    pieces[i][axis] = sizes[i];
    node.output(i, x.type, pieces[i]);
  }
  if (after_tokens(x.shape, axis)) node.row_wise();
  return std::make_unique<Pieces>(std::move(pieces), axis, element_bytes(node, x), /*join=*/false);
}

MadeOp make_slice(Binder& node) {
  node.expect_inputs(3, 5);
  const Value& x = node.input(0);
  const auto starts = node.constant_ints(1), ends = node.constant_ints(2);
  const auto axes = node.has(3) ? node.constant_ints(3) : std::vector<int64_t>{0};
  const auto steps = node.has(4) ? node.constant_ints(4) : std::vector<int64_t>{1};
  if (starts.size() != 1 || ends.size() != 1 || axes.size() != 1 || steps.size() != 1 || steps[0] < 1) {
    node.unsupported("does not slice exactly one axis with a positive step");
  }
  const size_t axis = node.axis(axes[0], x.shape.size());
  const int64_t length = x.shape[axis];
  if (length == kTokens) node.unsupported("slices along the token axis");
  const auto clamped = [&](int64_t i) {
    return std::clamp<int64_t>(i < 0 ? std::max(i, -length) + length : i, 0, length);
  };
  const int64_t start = clamped(starts[0]), end = clamped(ends[0]);
  node.require(start < end, "slices out nothing");
  const int64_t count = (end - start - 1) / steps[0] + 1;
  Shape shape = x.shape;
  shape[axis] = count;
  if (after_tokens(shape, axis)) node.row_wise();
  node.output(0, x.type, shape);
  return std::make_unique<Slice>(x.shape, axis, static_cast<size_t>(start), static_cast<size_t>(steps[0]),
                                 static_cast<size_t>(count), element_bytes(node, x));
}

MadeOp make_cast(Binder& node) {
  node.expect_inputs(1, 1);
  const Value& x = node.input(0);
  const auto to = static_cast<DataType>(node.int_attribute("to"));
  node.int_attribute("saturate", 1);                             // only for float8
  node.attribute("round_mode", onnx::Attribute::Type::kString);  // only for float8
  // Float16 stays as it is for those who read it so (scales of weights), as the bytes are why it is there.
  if (to == x.type || (to == DataType::kFloat && x.type == DataType::kFloat16)) {
    node.view(0, 0, x.shape);
    return nullptr;
  }
  Cast::Convert convert = nullptr;
  if (to == DataType::kFloat) convert = convert_from<float>(x.type);
  if (to == DataType::kInt32) convert = convert_from<int32_t>(x.type);
  if (to == DataType::kInt64) convert = convert_from<int64_t>(x.type);
  if (convert == nullptr) node.unsupported("casts " + type_name(x.type) + " to " + type_name(to));
  if (token_major(x.shape)) node.row_wise();
  node.output(0, to, x.shape);
  return std::make_unique<Cast>(x.shape, convert);
}

}  // namespace allmem::ops
