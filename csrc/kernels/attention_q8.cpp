// Window attention with 8-bit keys and values: tiles of keys against all the queries of a block.
#include "kernels/attention_q8.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace allmem {

namespace {

constexpr size_t kMaxRows = 256;  // queries at a time: their sums stay in the second-level cache
constexpr size_t kFewRows = 4;    // below it a tile of keys does not repay being unpacked
constexpr uint64_t kNoLimit = std::numeric_limits<uint64_t>::max();

// Q8Rows of `rows` rows of `stride` channels inside floats.
Q8Rows q8_rows(float* memory, size_t rows, size_t stride) {
  auto* codes = reinterpret_cast<int8_t*>(memory);
  float* scales = memory + rows * stride / sizeof(float);
  return {codes, scales, reinterpret_cast<int32_t*>(scales + rows * stride / kQ8Group)};
}
size_t q8_floats(size_t rows, size_t stride) {
  return rows * (stride / sizeof(float) + 2 * stride / kQ8Group);
}
Q8Rows row_of(const Q8Rows& q, size_t row, size_t stride) {
  return {q.codes + row * stride, q.scales + row * stride / kQ8Group, q.sums + row * stride / kQ8Group};
}

// The queries of one KV head for some tokens, row = (token, head in group), and their running softmax.
struct Queries {
  size_t group, rows;
  uint64_t first;  // position of the first token
  float* sum;      // [rows, D]  Σ w v
  float* max;      // [rows]     largest score so far
  float* total;    // [rows]     Σ w
  float* scores;   // [rows, kKeyTile]
  float* values;   // [kKeyTile, D]
};

size_t tile_tokens(const AttentionQ8Args& args) {
  const size_t group = args.heads / args.ring.kv_heads;
  return std::min(args.tokens, group < kMaxRows ? kMaxRows / group : 1);
}

// Rows of x, times `factor`, filled up with zeros and quantised.
void quantise_padded(const Kernels& kernels, const float* x, size_t dim, size_t stride, float factor,
                     float* padded, const Q8Rows& to) {
  for (size_t d = 0; d < dim; ++d) padded[d] = x[d] * factor;
  std::fill(padded + dim, padded + stride, 0.0f);
  kernels.quantise(padded, 1, stride, 8, to);
}

// Attends to `count` tokens from position s on, which lie in consecutive slots. A query sees those no later
// than itself and fewer than `reach` tokens back.
void attend_tile(const Kernels& kernels, const AttentionQ8Args& args, size_t kv, const Queries& queries,
                 const Q8Rows& q, uint64_t s, size_t count, uint64_t reach) {
  const KvRing& ring = args.ring;
  const size_t stride = ring.stride(), D = ring.dim, slot = ring.slot(s);
  const uint64_t last = queries.first + queries.rows / queries.group - 1;  // position of the last query
  // Tokens whose query sees any of these keys: from s on, and until s + count - 1 is out of reach.
  const uint64_t from = std::max(queries.first, s);
  const uint64_t to = reach == kNoLimit ? last : std::min(last, s + count - 2 + reach);
  if (from > to) return;
  const size_t begin = static_cast<size_t>(from - queries.first) * queries.group;
  const size_t end = static_cast<size_t>(to - queries.first + 1) * queries.group;

  const NBitsMatrix keys{ring.codes(args.keys, kv, slot),
                         ring.scales(args.keys, kv, slot),
                         nullptr,
                         kKeyTile,
                         stride,
                         kQ8Group,
                         8};
  float* scores = queries.scores + begin * kKeyTile;
  if (end - begin < kFewRows) {
    for (size_t row = begin; row < end; ++row)
      kernels.linear_q8(row_of(q, row, stride), keys, nullptr, queries.scores + row * kKeyTile, 1, 0, count);
  } else {
    kernels.linear_q8(row_of(q, begin, stride), keys, nullptr, scores, end - begin, 0, count);
  }
  for (size_t row = begin; row < end; ++row) {
    const uint64_t t = queries.first + row / queries.group;
    const uint64_t oldest = t + 1 > reach ? t + 1 - reach : 0;
    const uint64_t seen_from = std::max(s, oldest), seen_to = std::min(s + count, t + 1);
    const size_t first = seen_from < seen_to ? static_cast<size_t>(seen_from - s) : 0;
    const size_t behind = seen_from < seen_to ? static_cast<size_t>(seen_to - s) : 0;
    kernels.softmax_step(queries.scores + row * kKeyTile, first, behind, queries.max + row,
                         queries.total + row, queries.sum + row * D, D);
  }
  kernels.dequantise(ring.codes(args.values, kv, slot), ring.scales(args.values, kv, slot), stride,
                     queries.values, count, D);
  kernels.weighted_sum(scores, kKeyTile, queries.values, D, queries.sum + begin * D, D, end - begin, D,
                       count);
}

// The tokens s_begin <= s < s_end, in tiles that do not wrap around the ring.
void attend(const Kernels& kernels, const AttentionQ8Args& args, size_t kv, const Queries& queries,
            const Q8Rows& q, uint64_t s_begin, uint64_t s_end, uint64_t reach) {
  for (uint64_t s = s_begin; s < s_end;) {
    const size_t slot = args.ring.slot(s);
    const size_t room = slot < args.ring.sinks ? args.ring.sinks - slot : args.ring.slots() - slot;
    const size_t count = static_cast<size_t>(std::min<uint64_t>({kKeyTile, room, s_end - s}));
    attend_tile(kernels, args, kv, queries, q, s, count, reach);
    s += count;
  }
}

}  // namespace

size_t store_kv_scratch(const KvRing& ring) { return ring.stride() + q8_floats(1, ring.stride()); }

void store_kv(const Kernels& kernels, const KvRing& ring, const float* rows, size_t T, uint64_t position,
              std::byte* to, size_t kv_begin, size_t kv_end, float* scratch) {
  const size_t stride = ring.stride();
  const Q8Rows row = q8_rows(scratch + stride, 1, stride);
  for (size_t t = 0; t < T; ++t) {
    const size_t slot = ring.slot(position + t);
    for (size_t kv = kv_begin; kv < kv_end; ++kv) {
      quantise_padded(kernels, rows + (t * ring.kv_heads + kv) * ring.dim, ring.dim, stride, 1.0f, scratch,
                      row);
      auto* codes = const_cast<uint8_t*>(ring.codes(to, kv, slot));
      for (size_t d = 0; d < stride; ++d) codes[d] = static_cast<uint8_t>(row.codes[d] + 128);
      std::copy_n(row.scales, stride / kQ8Group, const_cast<float*>(ring.scales(to, kv, slot)));
    }
  }
}

size_t attention_q8_scratch(const AttentionQ8Args& args) {
  const size_t rows = tile_tokens(args) * (args.heads / args.ring.kv_heads), stride = args.ring.stride();
  const size_t attention =
      2 * q8_floats(rows, stride) + rows * (args.ring.dim + 2 + kKeyTile) + kKeyTile * args.ring.dim + stride;
  return std::max(attention, store_kv_scratch(args.ring));
}

void attention_q8(const Kernels& kernels, const AttentionQ8Args& args, size_t kv_begin, size_t kv_end,
                  float* scratch) {
  const KvRing& ring = args.ring;
  const size_t group = args.heads / ring.kv_heads, D = ring.dim, stride = ring.stride();
  const size_t step = tile_tokens(args);
  for (size_t kv = kv_begin; kv < kv_end; ++kv) {
    for (size_t token = 0; token < args.tokens; token += step) {
      const size_t tokens = std::min(step, args.tokens - token), rows = tokens * group;
      const Q8Rows q = q8_rows(scratch, rows, stride);
      const Q8Rows q_sink = q8_rows(scratch + q8_floats(rows, stride), rows, stride);
      float* sum = scratch + 2 * q8_floats(rows, stride);
      float* scores = sum + rows * D;
      float* values = scores + rows * kKeyTile;
      float* max = values + kKeyTile * D;
      float* total = max + rows;
      float* padded = total + rows;
      const Queries queries{group, rows, args.position + token, sum, max, total, scores, values};
      for (size_t row = 0; row < rows; ++row) {
        const size_t from = ((token + row / group) * args.heads + kv * group + row % group) * D;
        quantise_padded(kernels, args.q + from, D, stride, args.scale, padded, row_of(q, row, stride));
        if (ring.sinks > 0)
          quantise_padded(kernels, args.q_sink + from, D, stride, args.scale, padded,
                          row_of(q_sink, row, stride));
      }
      std::fill_n(sum, rows * D, 0.0f);
      std::fill_n(max, rows, -INFINITY);
      std::fill_n(total, rows, 0.0f);

      const uint64_t behind = queries.first + tokens;
      attend(kernels, args, kv, queries, q_sink, 0, std::min<uint64_t>(ring.sinks, behind), kNoLimit);
      const uint64_t oldest = std::max<uint64_t>(
          ring.sinks, queries.first + 1 > ring.window ? queries.first + 1 - ring.window : 0);
      attend(kernels, args, kv, queries, q, oldest, behind, ring.window);

      for (size_t row = 0; row < rows; ++row) {
        float* y = args.y + ((token + row / group) * args.heads + kv * group + row % group) * D;
        for (size_t d = 0; d < D; ++d) y[d] = sum[row * D + d] / total[row];
      }
    }
  }
}

}  // namespace allmem
