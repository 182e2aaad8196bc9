// How wide attention and memories may be. No model is near; up to here the sizes of their scratch memory,
// some of them a hundred times as large, are what 32 bits can count.
#pragma once

#include "graph/binder.h"

namespace allmem::ops {

inline void check_heads(const Binder& node, int64_t heads, int64_t dim) {
  node.require(heads * dim <= int64_t{1} << 20, "has heads of more than 2^20 channels together");
}

// Of a memory with these heads.
inline void check_hidden(const Binder& node, int64_t heads, int64_t dim, int64_t hidden) {
  node.require(heads * hidden <= int64_t{1} << 22, "has heads of more than 2^22 hidden channels together");
  node.require(hidden * dim <= int64_t{1} << 24, "has memory matrices of more than 2^24 weights");
}

}  // namespace allmem::ops
