// Operators that only rename or reshape: Identity, Reshape, Squeeze, Unsqueeze, Constant. They cost nothing
// at run time.
#include <algorithm>
#include <set>

#include "ops/registry.h"

namespace allmem::ops {

namespace {

// The number of elements without T, and whether T is a factor.
struct Count {
  size_t fixed;
  bool tokens;
};

Count count(const Shape& shape) { return {elements(shape, 1), has_tokens(shape)}; }

// The axes given as input 1, sorted, counted from the front of a tensor of `rank`.
std::set<size_t> axes_of(Binder& node, size_t rank) {
  std::set<size_t> axes;
  for (const int64_t axis : node.constant_ints(1)) {
    if (!axes.insert(node.axis(axis, rank)).second) node.fail("names an axis twice");
  }
  return axes;
}

}  // namespace

MadeOp make_identity(Binder& node) {
  node.expect_inputs(1, 1);
  node.view(0, 0, node.input(0).shape);
  return nullptr;
}

MadeOp make_reshape(Binder& node) {
  node.expect_inputs(2, 2);
  const Value& x = node.input(0);
  const bool allow_zero = node.int_attribute("allowzero", 0) != 0;
  const std::vector<int64_t> wanted = node.constant_ints(1);
  Shape shape;
  size_t unknown = wanted.size();
  for (size_t i = 0; i < wanted.size(); ++i) {
    int64_t dim = wanted[i];
    if (dim == 0 && !allow_zero) {
      node.require(i < x.shape.size(), "copies a dimension that its input does not have");
      dim = x.shape[i];
    } else if (dim == -1) {
      node.require(unknown == wanted.size(), "has two dimensions of -1");
      unknown = i;
      dim = 1;
    } else {
      node.require(dim >= 1 && dim < int64_t{1} << 29, "has an invalid dimension");
    }
    shape.push_back(dim);
  }
  const Count from = count(x.shape);
  size_t fixed = 1;  // of `shape`, without the open dimension; stops growing once it cannot fit
  for (const int64_t dim : shape)
    fixed = dim == kTokens || fixed > from.fixed ? fixed : fixed * static_cast<size_t>(dim);
  const bool open_tokens = from.tokens && !has_tokens(shape);
  const bool fits = unknown < shape.size() ? fixed > 0 && from.fixed % fixed == 0 : fixed == from.fixed;
  // An open dimension stands for T itself, or for a fixed number; 2T or T/2 have no place in a shape.
  if (!fits || (open_tokens && (unknown == shape.size() || fixed != from.fixed)) ||
      (has_tokens(shape) && !from.tokens)) {
    node.fail("cannot give " + to_string(x.shape) + " the shape " + to_string(wanted) +
              " (where T is -1), or not for every number of tokens");
  }
  if (unknown < shape.size())
    shape[unknown] = open_tokens ? kTokens : static_cast<int64_t>(from.fixed / fixed);
  node.view(0, 0, shape);
  return nullptr;
}

MadeOp make_squeeze(Binder& node) {
  node.expect_inputs(1, 2);
  const Value& x = node.input(0);
  const std::set<size_t> axes = node.has(1) ? axes_of(node, x.shape.size()) : std::set<size_t>();
  Shape shape;
  for (size_t i = 0; i < x.shape.size(); ++i) {
    if (node.has(1) ? !axes.contains(i) : x.shape[i] != 1) {
      shape.push_back(x.shape[i]);
    } else {
      node.require(x.shape[i] == 1, "removes a dimension that is not 1");
    }
  }
  node.view(0, 0, shape);
  return nullptr;
}

MadeOp make_unsqueeze(Binder& node) {
  node.expect_inputs(2, 2);
  const Value& x = node.input(0);
  const size_t rank = x.shape.size() + node.constant_ints(1).size();
  node.require(rank <= 8, "makes more than 8 dimensions");
  const std::set<size_t> axes = axes_of(node, rank);
  Shape shape;
  auto next = x.shape.begin();
  for (size_t i = 0; i < rank; ++i) shape.push_back(axes.contains(i) ? 1 : *next++);
  node.view(0, 0, shape);
  return nullptr;
}

MadeOp make_constant(Binder& node) {
  using Type = onnx::Attribute::Type;
  node.expect_inputs(0, 0);
  const auto as_bytes = [](const auto* data) { return reinterpret_cast<const std::byte*>(data); };
  if (const auto* value = node.attribute("value", Type::kTensor)) {
    node.constant(0, value->t->type, value->t->dims, value->t->data.data());
  } else if (const auto* number = node.attribute("value_float", Type::kFloat)) {
    node.constant(0, onnx::DataType::kFloat, {}, as_bytes(&number->f));
  } else if (const auto* integer = node.attribute("value_int", Type::kInt)) {
    node.constant(0, onnx::DataType::kInt64, {}, as_bytes(&integer->i));
  } else if (const auto* numbers = node.attribute("value_floats", Type::kFloats)) {
    node.constant(0, onnx::DataType::kFloat, {static_cast<int64_t>(numbers->floats.size())},
                  as_bytes(numbers->floats.data()));
  } else if (const auto* integers = node.attribute("value_ints", Type::kInts)) {
    node.constant(0, onnx::DataType::kInt64, {static_cast<int64_t>(integers->ints.size())},
                  as_bytes(integers->ints.data()));
  } else {
    node.unsupported("holds no tensor, number or list of numbers");
  }
  return nullptr;
}

}  // namespace allmem::ops
