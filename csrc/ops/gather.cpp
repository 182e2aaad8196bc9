// Gather and com.microsoft::GatherBlockQuantized along the first axis: rows of a table, mostly token
// embeddings.
#include <algorithm>
#include <cstring>

#include "kernels/half.h"
#include "ops/registry.h"
#include "platform/error.h"

namespace allmem::ops {

namespace {

using onnx::DataType;

int64_t checked_index(const void* indices, bool wide, size_t i, int64_t rows) {
  int64_t index = wide ? static_cast<const int64_t*>(indices)[i] : static_cast<const int32_t*>(indices)[i];
  if (index < 0) index += rows;
  if (index < 0 || index >= rows) {
    throw Error(ErrorCode::kBadModel, "A Gather node of the model asks for row " + std::to_string(index) +
                                          " of a table of " + std::to_string(rows) + " rows.");
  }
  return index;
}

class Gather : public Op {
 public:
  Gather(Shape indices, bool wide, int64_t rows, size_t row_bytes)
      : indices_(std::move(indices)), wide_(wide), rows_(rows), row_bytes_(row_bytes) {}

  void run(const RunContext& ctx) const override {
    const size_t count = elements(indices_, ctx.tokens);
    for (size_t i = 0; i < count; ++i) {
      const auto row = static_cast<size_t>(checked_index(ctx.in<void>(1), wide_, i, rows_));
      std::memcpy(ctx.out<std::byte>(0) + i * row_bytes_, ctx.in<std::byte>(0) + row * row_bytes_,
                  row_bytes_);
    }
  }

 private:
  Shape indices_;
  bool wide_;  // int64 indices, else int32
  int64_t rows_;
  size_t row_bytes_;
};

class GatherNBits : public Op {
 public:
  GatherNBits(Shape indices, bool wide, int64_t rows, size_t cols, size_t block, unsigned bits,
              bool half_scales)
      : indices_(std::move(indices)),
        wide_(wide),
        rows_(rows),
        cols_(cols),
        block_(block),
        bits_(bits),
        half_scales_(half_scales) {}

  void run(const RunContext& ctx) const override {
    const size_t count = elements(indices_, ctx.tokens), blocks = (cols_ + block_ - 1) / block_;
    const size_t row_bytes = cols_ * bits_ / 8, zero_bytes = (blocks * bits_ + 7) / 8;
    for (size_t i = 0; i < count; ++i) {
      const auto row = static_cast<size_t>(checked_index(ctx.in<void>(1), wide_, i, rows_));
      const uint8_t* codes = ctx.in<uint8_t>(0) + row * row_bytes;
      const uint8_t* zeros = ctx.has(3) ? ctx.in<uint8_t>(3) + row * zero_bytes : nullptr;
      float* y = ctx.out(0) + i * cols_;
      for (size_t b = 0; b < blocks; ++b) {
        const size_t at = row * blocks + b;
        const float scale = half_scales_ ? from_half(ctx.in<uint16_t>(2)[at]) : ctx.in(2)[at];
        const int zero = zeros != nullptr ? code(zeros, b) : 1 << (bits_ - 1);
        for (size_t c = b * block_; c < std::min((b + 1) * block_, cols_); ++c)
          y[c] = static_cast<float>(code(codes, c) - zero) * scale;
      }
    }
  }

 private:
  // Element i of a row of 4-bit codes (low nibble first) or bytes.
  int code(const uint8_t* row, size_t i) const {
    return bits_ == 8 ? row[i] : row[i / 2] >> (i % 2 * 4) & 0xF;
  }

  Shape indices_;
  bool wide_;
  int64_t rows_;
  size_t cols_, block_;
  unsigned bits_;
  bool half_scales_;
};

// Checks the indices; true when they are int64.
bool wide_indices(Binder& node, int64_t rows) {
  const Value& indices = node.input(1);
  if (indices.type != DataType::kInt64 && indices.type != DataType::kInt32) {
    node.fail("needs int64 or int32 indices, but '" + indices.name + "' is " + type_name(indices.type));
  }
  if (node.is_ids(1)) {
    node.limit_ids(rows);
  } else {
    node.may_throw();
  }
  if (token_major(indices.shape)) node.row_wise();
  return indices.type == DataType::kInt64;
}

}  // namespace

MadeOp make_gather(Binder& node) {
  node.expect_inputs(2, 2);
  const Value& table = node.input(0);
  if (node.int_attribute("axis", 0) != 0 || has_tokens(table.shape)) {
    node.unsupported(
        "gathers along an axis other than the first, or from a table that depends on the tokens");
  }
  node.require(!table.shape.empty(), "gathers from a scalar");
  const size_t row_bits = elements(table.shape, 1, table.shape.size(), 1) * onnx::type_bits(table.type);
  if (row_bits % 8 != 0) node.unsupported("gathers rows whose size is not a whole number of bytes");
  const bool wide = wide_indices(node, table.shape[0]);
  const Shape indices = node.input(1).shape;
  Shape shape = indices;
  shape.insert(shape.end(), table.shape.begin() + 1, table.shape.end());
  node.output(0, table.type, shape);
  return std::make_unique<Gather>(indices, wide, table.shape[0], row_bits / 8);
}

MadeOp make_gather_nbits(Binder& node) {
  node.expect_inputs(3, 4);
  const Value& codes = node.input(0, DataType::kUint8);
  const int64_t bits = node.int_attribute("bits", 4), block = node.int_attribute("block_size", 128);
  const int64_t quantize_axis = node.int_attribute("quantize_axis", 1);
  if ((bits != 4 && bits != 8) || block < 16 || block > 65536 || node.int_attribute("gather_axis", 0) != 0 ||
      codes.shape.size() != 2 || node.axis(quantize_axis, 2) != 1 || has_tokens(codes.shape)) {
    node.unsupported(
        "is not a gather of rows from a [rows, columns] table of 4 or 8 bits, quantised along the row");
  }
  const int64_t rows = codes.shape[0], cols = codes.shape[1] * 8 / bits, blocks = (cols + block - 1) / block;
  node.constant_bytes(0);
  const Value& scales = node.float_or_half(2);
  node.require(rows >= 1 && cols >= 1, "has an empty table");
  node.require(scales.shape == Shape({rows, blocks}), "needs a scale for each block");
  if (node.has(3)) node.input(3, DataType::kUint8, {rows, (blocks * bits + 7) / 8});
  const bool wide = wide_indices(node, rows);
  const bool half_scales = scales.type == DataType::kFloat16;
  const Shape indices = node.input(1).shape;
  Shape shape = indices;
  shape.push_back(cols);
  node.output(0, DataType::kFloat, shape);
  return std::make_unique<GatherNBits>(indices, wide, rows, static_cast<size_t>(cols),
                                       static_cast<size_t>(block), static_cast<unsigned>(bits), half_scales);
}

}  // namespace allmem::ops
