// What the nodes of both kinds of long-term memory begin with: q̃, k̃, v, η and β (docs/format.md).
#pragma once

#include "graph/binder.h"
#include "ops/widths.h"

namespace allmem::ops {

enum MemoryInput : size_t { kQ, kK, kV, kEta, kBeta, kOwnInputs };

struct MemoryHeads {
  size_t heads, kv_heads, dim;
  size_t group() const { return heads / kv_heads; }
  size_t q_stride() const { return heads * dim; }  // floats from a token to the next; of y as well
  size_t k_stride() const { return kv_heads * dim; }
};

// Checks them, and declares the output y [T, H*D].
inline MemoryHeads bind_memory_inputs(Binder& node) {
  using onnx::DataType;
  const int64_t heads = node.size_attribute("num_heads", 1),
                kv_heads = node.size_attribute("num_kv_heads", 1), dim = node.size_attribute("head_dim", 1);
  node.require(heads % kv_heads == 0, "needs num_heads to be a multiple of num_kv_heads");
  check_heads(node, heads, dim);
  node.input(kQ, DataType::kFloat, {kTokens, heads * dim});
  for (const size_t i : {kK, kV}) node.input(i, DataType::kFloat, {kTokens, kv_heads * dim});
  for (const size_t i : {kEta, kBeta}) node.input(i, DataType::kFloat, {kTokens, kv_heads});
  node.output(0, DataType::kFloat, {kTokens, heads * dim});
  return {static_cast<size_t>(heads), static_cast<size_t>(kv_heads), static_cast<size_t>(dim)};
}

}  // namespace allmem::ops
