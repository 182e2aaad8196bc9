// Sliding-window attention with sinks: tiles of queries against tiles of keys, with an online softmax.
//
// A block of tokens is bound by arithmetic, one token by reading its window: either way each key and value is
// read once for a whole tile of queries (32 rows: the query heads of one KV head, for as many tokens as fit).
// `Gemm` has the two matrix products, `nt` and `nn` (kernels/gemm.h).
#pragma once

#include "kernels/simd/vector.h"

namespace allmem::simd {
namespace {

constexpr size_t kQueryRows = 32, kKeys = 32;
constexpr float kMinusInfinity = -__builtin_inff();

inline uint64_t larger(uint64_t a, uint64_t b) { return a > b ? a : b; }
inline uint64_t least(uint64_t a, uint64_t b) { return a < b ? a : b; }

inline size_t tile_tokens(const AttentionArgs& args) {
  const size_t group = args.heads / args.kv_heads;
  const size_t fitting = group < kQueryRows ? kQueryRows / group : 1;
  return smaller(fitting, args.tokens);
}

// A tile of queries of one KV head, row = (token, head in group), and its running softmax.
struct Tile {
  const AttentionArgs& args;
  size_t kv, group, rows;
  uint64_t first;  // position of the tile's first token
  float* q;        // [rows, D], times the softmax scale
  float* q_sink;   // [rows, D], likewise
  float* sum;      // [rows, D]  Σ w v
  float* scores;   // [rows, kKeys]
  float* max;      // [rows]     largest score so far
  float* total;    // [rows]     Σ w

  uint64_t position(size_t row) const { return first + row / group; }
};

inline void load_queries(const Tile& tile, const float* from, float* to) {
  const AttentionArgs& a = tile.args;
  const Vector scale = broadcast(a.scale);
  for (size_t row = 0; row < tile.rows; ++row, to += a.dim) {
    const size_t token = static_cast<size_t>(tile.position(row) - a.position);
    const size_t head = tile.kv * tile.group + row % tile.group;
    for_each(from + (token * a.heads + head) * a.dim, to, a.dim, [&](Vector v) { return v * scale; });
  }
}

// Turns a row's scores of the keys [begin, end) of a tile into weights exp(score - max), 0 for all other
// keys.
inline void update_softmax(const Tile& tile, size_t row, size_t begin, size_t end) {
  float* scores = tile.scores + row * kKeys;
  if (begin >= end) return fill(scores, kKeys, 0);
  fill(scores, begin, kMinusInfinity);
  fill(scores + end, kKeys - end, kMinusInfinity);
  Vector highest = broadcast(tile.max[row]);
  for (size_t j = 0; j < kKeys; j += kLanes) highest = max(highest, load(scores + j));
  highest = broadcast(largest(highest));
  Vector total = broadcast(0);
  for (size_t j = 0; j < kKeys; j += kLanes) {
    const Vector weights = exp(load(scores + j) - highest);
    total += weights;
    store(scores + j, weights);
  }
  const Vector shrink = exp(broadcast(tile.max[row]) - highest);  // 0 the first time
  tile.total[row] = tile.total[row] * first(shrink) + sum(total);
  tile.max[row] = first(highest);
  float* so_far = tile.sum + row * tile.args.dim;
  for_each(so_far, so_far, tile.args.dim, [&](Vector v) { return v * shrink; });
}

// Attends to the tokens s_begin <= s < s_end, whose keys and values lie `stride` floats apart. Each row takes
// those that it may see: no later than itself, and with `reach` > 0 fewer than `reach` tokens back.
template <class Gemm>
inline void attend(const Tile& tile, const float* queries, const float* k, const float* v, size_t stride,
                   uint64_t s_begin, uint64_t s_end, uint64_t reach) {
  const size_t D = tile.args.dim;
  for (uint64_t s = s_begin; s < s_end; s += kKeys, k += kKeys * stride, v += kKeys * stride) {
    const size_t count = static_cast<size_t>(least(kKeys, s_end - s));
    fill(tile.scores, tile.rows * kKeys, 0);
    Gemm::nt(queries, D, k, stride, tile.scores, kKeys, tile.rows, count, D);
    for (size_t row = 0; row < tile.rows; ++row) {
      const uint64_t t = tile.position(row), oldest = reach > 0 && t + 1 > reach ? t + 1 - reach : 0;
      const uint64_t begin = larger(s, oldest), end = least(s + count, t + 1);
      if (begin >= end) {
        update_softmax(tile, row, 0, 0);
      } else {
        update_softmax(tile, row, static_cast<size_t>(begin - s), static_cast<size_t>(end - s));
      }
    }
    Gemm::nn(tile.scores, kKeys, 1, v, stride, tile.sum, D, tile.rows, D, count);
  }
}

// The tokens s_begin <= s < s_end of this call.
template <class Gemm>
inline void attend_current(const Tile& tile, const float* queries, uint64_t s_begin, uint64_t s_end,
                           uint64_t reach) {
  if (s_begin >= s_end) return;
  const AttentionArgs& a = tile.args;
  const size_t offset = (static_cast<size_t>(s_begin - a.position) * a.kv_heads + tile.kv) * a.dim;
  attend<Gemm>(tile, queries, a.k + offset, a.v + offset, a.kv_heads * a.dim, s_begin, s_end, reach);
}

// The slots of the ring that hold the tokens s_begin <= s < s_end, which do not wrap around.
template <class Gemm>
inline void attend_ring(const Tile& tile, const float* queries, size_t slot, uint64_t s_begin, uint64_t s_end,
                        uint64_t reach) {
  if (s_begin >= s_end) return;
  const AttentionArgs& a = tile.args;
  const size_t offset = (tile.kv * (a.sinks + a.window) + slot) * a.dim;
  attend<Gemm>(tile, queries, a.k_ring + offset, a.v_ring + offset, a.dim, s_begin, s_end, reach);
}

// Sinks first, then the window, each from the ring and then from this call.
template <class Gemm>
inline void attend_all(const Tile& tile, size_t tokens) {
  const AttentionArgs& a = tile.args;
  const uint64_t last = tile.first + tokens;  // behind the tile's last token
  attend_ring<Gemm>(tile, tile.q_sink, 0, 0, least(a.sinks, a.position), 0);
  attend_current<Gemm>(tile, tile.q_sink, a.position, least(a.sinks, last), 0);

  const uint64_t oldest = larger(a.sinks, tile.first + 1 > a.window ? tile.first + 1 - a.window : 0);
  if (oldest < a.position) {
    const size_t index = static_cast<size_t>((oldest - a.sinks) % a.window);
    const uint64_t wrap = least(a.position, oldest + (a.window - index));
    attend_ring<Gemm>(tile, tile.q, a.sinks + index, oldest, wrap, a.window);
    attend_ring<Gemm>(tile, tile.q, a.sinks, wrap, a.position, a.window);
  }
  attend_current<Gemm>(tile, tile.q, larger(oldest, a.position), last, a.window);
}

inline void store_result(const Tile& tile) {
  const AttentionArgs& a = tile.args;
  for (size_t row = 0; row < tile.rows; ++row) {
    const size_t token = static_cast<size_t>(tile.position(row) - a.position);
    const size_t head = tile.kv * tile.group + row % tile.group;
    const Vector total = broadcast(tile.total[row]);
    for_each(tile.sum + row * a.dim, a.y + (token * a.heads + head) * a.dim, a.dim,
             [&](Vector v) { return v / total; });
  }
}

inline size_t attention_scratch(const AttentionArgs& args) {
  const size_t rows = tile_tokens(args) * (args.heads / args.kv_heads);
  return rows * (3 * args.dim + kKeys + 2);
}

template <class Gemm>
inline void attention(const AttentionArgs& args, size_t kv_begin, size_t kv_end, float* scratch) {
  const size_t group = args.heads / args.kv_heads, D = args.dim;
  const size_t step = tile_tokens(args);
  for (size_t kv = kv_begin; kv < kv_end; ++kv) {
    for (size_t token = 0; token < args.tokens; token += step) {
      const size_t tokens = smaller(step, args.tokens - token), rows = tokens * group;
      float* q = scratch;
      float* q_sink = q + rows * D;
      float* sum = q_sink + rows * D;
      float* scores = sum + rows * D;
      float* max = scores + rows * kKeys;
      float* total = max + rows;
      const Tile tile{args, kv, group, rows, args.position + token, q, q_sink, sum, scores, max, total};
      load_queries(tile, args.q, q);
      if (args.sinks > 0) load_queries(tile, args.q_sink, q_sink);
      fill(sum, rows * D, 0);
      fill(max, rows, kMinusInfinity);
      fill(total, rows, 0);
      attend_all<Gemm>(tile, tokens);
      store_result(tile);
    }
  }
}

}  // namespace
}  // namespace allmem::simd
