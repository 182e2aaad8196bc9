// Window attention with 8-bit keys and values: tiles of keys against all the queries of a block.
#include "kernels/attention_q8.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/rows_q8.h"

namespace allmem {

namespace {

constexpr uint64_t kNoLimit = std::numeric_limits<uint64_t>::max();

// The queries of one KV head for some tokens, row = (token, head in group), and their running softmax.
struct Queries {
  size_t group, rows;
  uint64_t first;      // position of the first token
  Q8Rows own, sink;    // [rows, stride] codes, for the keys of the window and of the sinks
  float *max, *total;  // [rows]     largest score so far, Σ w
  float* shrink;       // [rows]     what the sums so far are multiplied by in this step
  SeenKeys* seen;      // [rows]     of this step's tile
  float* sum;          // [rows, D]  Σ w v
  float* scores;       // [rows, kKeyTile], then the weights w times the values' scales
  Q8Rows weights;      // [rows, kKeyTile] codes
  float* ones;         // [D]  instead of the values' scales, which the weights have taken

  Queries(const KvRing& ring, size_t heads_in_group, size_t tokens, uint64_t position, Scratch& parts)
      : group(heads_in_group), rows(tokens * heads_in_group), first(position) {
    own = parts.q8(rows, ring.stride());
    sink = parts.q8(rows, ring.stride());
    max = parts.floats(rows);
    total = parts.floats(rows);
    shrink = parts.floats(rows);
    static_assert(sizeof(SeenKeys) == sizeof(float));
    seen = reinterpret_cast<SeenKeys*>(parts.floats(rows));
    sum = parts.floats(rows * ring.dim);
    scores = parts.floats(rows * kKeyTile);
    weights = parts.q8(rows, kKeyTile);
    ones = parts.floats(ring.dim);
  }
};

Q8Rows from_row(const Q8Rows& q, size_t row, size_t cols) {
  return {q.codes + row * cols, q.scales + row * cols / kQ8Group, q.sums + row * cols / kQ8Group};
}

// Floats that hold a row filled up to whole groups, and its codes.
size_t row_scratch(const KvRing& ring) { return 2 * ring.stride(); }

// Floats that hold a tile's codes of values.
size_t values_scratch(const KvRing& ring) { return kKeyTile * ring.dim / sizeof(float); }

void prefetch_for_writing([[maybe_unused]] const void* memory) {
#if defined(__GNUC__)
  __builtin_prefetch(memory, 1);
#endif
}

// A row of x, times `factor`, filled up with zeros.
void pad(const float* x, size_t dim, size_t stride, float factor, float* padded) {
  for (size_t d = 0; d < dim; ++d) padded[d] = x[d] * factor;
  std::fill(padded + dim, padded + stride, 0.0f);
}

void quantise_padded(const Kernels& kernels, const float* x, size_t dim, size_t stride, float factor,
                     float* padded, const Q8Rows& to) {
  pad(x, dim, stride, factor, padded);
  kernels.quantise(padded, 1, stride, 8, to);
}

// y[row, 0..n) = the product of the rows [begin, end) of x with the first n rows of an 8-bit matrix; with
// `beta` [rows], that and beta[row] y[row].
void multiply(const Kernels& kernels, const Q8Rows& x, const NBitsMatrix& w, size_t n, const float* beta,
              float* y, size_t begin, size_t end) {
  kernels.linear_q8(from_row(x, begin, w.cols), w, Init{.beta = beta}.from_token(begin), y + begin * w.rows,
                    end - begin, 0, n);
}

// A row of `dim` values as codes; returns its scale.
float value_codes(const float* v, size_t dim, uint8_t* codes) {
  // As integers, the sizes of floats are in order, and those of NaNs come last.
  int32_t largest = 0;
  for (size_t d = 0; d < dim; ++d) largest = std::max(largest, std::bit_cast<int32_t>(v[d]) & 0x7FFFFFFF);
  const float max = std::bit_cast<float>(largest);
  if (!std::isfinite(max) || max <= kQ8Tiny) {
    std::fill_n(codes, dim, uint8_t{kQ8Zero});
    return std::isfinite(max) ? max / 127.0f : NAN;
  }
  const float inverse = 127.0f / max;
  // A sum with it is rounded to a whole number, in its low bits.
  constexpr float kToInteger = 0x1.8p23f + kQ8Zero;
  for (size_t d = 0; d < dim; ++d)
    codes[d] = static_cast<uint8_t>(std::bit_cast<uint32_t>(v[d] * inverse + kToInteger));
  return max / 127.0f;
}

std::byte* key_row(const KvRing& ring, const KvBytes& bytes, size_t kv, size_t slot) {
  return bytes.keys + (kv * ring.slots() + slot) * ring.stride();
}
float* key_scales(const KvRing& ring, const KvBytes& bytes, size_t kv, size_t slot) {
  std::byte* all = bytes.keys + ring.kv_heads * ring.slots() * ring.stride();
  return reinterpret_cast<float*>(all) + (kv * ring.slots() + slot) * (ring.stride() / kQ8Group);
}
std::byte* value_tile(const KvRing& ring, const KvBytes& bytes, size_t kv, size_t slot) {
  return bytes.values + (kv * ring.slots() + slot / kKeyTile * kKeyTile) * ring.dim;
}
float* value_scales(const KvRing& ring, const KvBytes& bytes, size_t kv, size_t slot) {
  std::byte* all = bytes.values + ring.kv_heads * ring.slots() * ring.dim;
  return reinterpret_cast<float*>(all) + kv * ring.slots() + slot;
}

// Calls visit(where, bytes) for each piece of a KV head's slot.
template <class Visit>
void each_piece(const KvRing& ring, const KvBytes& bytes, size_t kv, size_t slot, const Visit& visit) {
  visit(key_row(ring, bytes, kv, slot), ring.stride());
  visit(reinterpret_cast<std::byte*>(key_scales(ring, bytes, kv, slot)),
        ring.stride() / kQ8Group * sizeof(float));
  std::byte* values = value_tile(ring, bytes, kv, slot) + slot % kKeyTile;
  for (size_t d = 0; d < ring.dim; ++d) visit(values + d * kKeyTile, 1);
  visit(reinterpret_cast<std::byte*>(value_scales(ring, bytes, kv, slot)), sizeof(float));
}

// Attends to the `count` tokens from position s on, whose slots are the first of a tile, or some of one. A
// query sees those no later than itself and fewer than `reach` tokens back.
void attend_tile(const Kernels& kernels, const AttentionQ8Args& args, size_t kv, const Queries& queries,
                 const Q8Rows& q, uint64_t s, size_t count, uint64_t reach) {
  const KvRing& ring = args.ring;
  const size_t slot = ring.slot(s), into = slot % kKeyTile, tile = slot - into, D = ring.dim;
  const uint64_t last = queries.first + queries.rows / queries.group - 1;  // position of the last query
  // Tokens whose query sees any of these keys: from s on, and until s + count - 1 is out of reach.
  const uint64_t from = std::max(queries.first, s);
  const uint64_t to = reach == kNoLimit ? last : std::min(last, s + count - 2 + reach);
  if (from > to) return;
  const size_t begin = static_cast<size_t>(from - queries.first) * queries.group;
  const size_t end = static_cast<size_t>(to - queries.first + 1) * queries.group;

  const NBitsMatrix keys{reinterpret_cast<const uint8_t*>(key_row(ring, args.bytes, kv, tile)),
                         key_scales(ring, args.bytes, kv, tile),
                         nullptr,
                         kKeyTile,
                         ring.stride(),
                         kQ8Group,
                         8};
  multiply(kernels, q, keys, into + count, nullptr, queries.scores, begin, end);
  for (size_t row = begin; row < end; ++row) {
    const uint64_t t = queries.first + row / queries.group;
    const uint64_t oldest = t + 1 > reach ? t + 1 - reach : 0;
    const uint64_t seen_from = std::max(s, oldest), seen_to = std::max(seen_from, std::min(s + count, t + 1));
    queries.seen[row] = {static_cast<uint16_t>(into + (seen_from - s)),
                         static_cast<uint16_t>(into + (seen_to - s))};
  }
  kernels.softmax_step(queries.scores + begin * kKeyTile, value_scales(ring, args.bytes, kv, tile),
                       queries.seen + begin, end - begin, queries.max + begin, queries.total + begin,
                       queries.shrink + begin);
  kernels.quantise(queries.scores + begin * kKeyTile, end - begin, kKeyTile, 8,
                   from_row(queries.weights, begin, kKeyTile));
  const NBitsMatrix values{reinterpret_cast<const uint8_t*>(value_tile(ring, args.bytes, kv, tile)),
                           queries.ones,
                           nullptr,
                           D,
                           kKeyTile,
                           kKeyTile,
                           8};
  multiply(kernels, queries.weights, values, D, queries.shrink, queries.sum, begin, end);
}

// The tokens s_begin <= s < s_end, tile by tile.
void attend(const Kernels& kernels, const AttentionQ8Args& args, size_t kv, const Queries& queries,
            const Q8Rows& q, uint64_t s_begin, uint64_t s_end, uint64_t reach) {
  for (uint64_t s = s_begin; s < s_end;) {
    const size_t left = kKeyTile - args.ring.slot(s) % kKeyTile;
    const size_t count = static_cast<size_t>(std::min<uint64_t>(left, s_end - s));
    attend_tile(kernels, args, kv, queries, q, s, count, reach);
    s += count;
  }
}

}  // namespace

size_t attention_q8_scratch(const KvRing& ring, size_t heads, size_t T) {
  const size_t group = heads / ring.kv_heads;
  Scratch parts(nullptr);
  const Queries queries(ring, group, tokens_at_once(T, group), 0, parts);
  return std::max(parts.used(), values_scratch(ring)) + row_scratch(ring);
}

void store_kv(const Kernels& kernels, const KvRing& ring, const float* k, const float* v, size_t T,
              uint64_t position, const KvBytes& to, size_t kv_begin, size_t kv_end, float* scratch) {
  const size_t stride = ring.stride(), D = ring.dim;
  Scratch parts(scratch);
  float* padded = parts.floats(stride);
  auto* sums = reinterpret_cast<int32_t*>(parts.floats(stride / kQ8Group));
  auto* codes = reinterpret_cast<uint8_t*>(parts.floats(values_scratch(ring)));  // [kKeyTile, D]
  // A token's values are a column: a byte in each of many lines of memory, which all heads' are fetched for.
  for (size_t kv = kv_begin; kv < kv_end; ++kv) {
    const std::byte* tile = value_tile(ring, to, kv, ring.slot(position));
    for (size_t d = 0; d < D; ++d) prefetch_for_writing(tile + d * kKeyTile);
  }
  for (size_t kv = kv_begin; kv < kv_end; ++kv) {
    for (size_t begin = 0; begin < T;) {
      const size_t slot = ring.slot(position + begin), into = slot % kKeyTile;
      size_t count = 0;  // tokens whose slots follow each other in this tile
      for (; begin + count < T && into + count < kKeyTile; ++count) {
        const size_t t = begin + count, from = (t * ring.kv_heads + kv) * D;
        if (ring.slot(position + t) != slot + count) break;
        pad(k + from, D, stride, 1.0f, padded);
        store_row(kernels, padded, stride, reinterpret_cast<uint8_t*>(key_row(ring, to, kv, slot + count)),
                  key_scales(ring, to, kv, slot + count), sums);
        *value_scales(ring, to, kv, slot + count) = value_codes(v + from, D, codes + count * D);
      }
      auto* tile = reinterpret_cast<uint8_t*>(value_tile(ring, to, kv, slot)) + into;
      for (size_t d = 0; d < D; ++d)
        for (size_t i = 0; i < count; ++i) tile[d * kKeyTile + i] = codes[i * D + d];
      begin += count;
    }
  }
}

void copy_slot(const KvRing& ring, const KvBytes& from, size_t kv, uint64_t position, std::byte* to) {
  each_piece(ring, from, kv, ring.slot(position), [&](const std::byte* piece, size_t bytes) {
    std::memcpy(to, piece, bytes);
    to += bytes;
  });
}

void restore_slot(const KvRing& ring, const KvBytes& to, size_t kv, uint64_t position,
                  const std::byte* from) {
  each_piece(ring, to, kv, ring.slot(position), [&](std::byte* piece, size_t bytes) {
    std::memcpy(piece, from, bytes);
    from += bytes;
  });
}

void attention_q8(const Kernels& kernels, const AttentionQ8Args& args, size_t kv_begin, size_t kv_end,
                  float* scratch) {
  const KvRing& ring = args.ring;
  const size_t group = args.heads / ring.kv_heads, D = ring.dim, stride = ring.stride();
  const size_t step = tokens_at_once(args.tokens, group);
  for (size_t kv = kv_begin; kv < kv_end; ++kv) {
    for (size_t token = 0; token < args.tokens; token += step) {
      const size_t tokens = std::min(step, args.tokens - token);
      Scratch parts(scratch);
      const Queries queries(ring, group, tokens, args.position + token, parts);
      float* padded = parts.floats(row_scratch(ring));
      const auto offset = [&](size_t row) {
        return ((token + row / group) * args.heads + kv * group + row % group) * D;
      };
      for (size_t row = 0; row < queries.rows; ++row) {
        quantise_padded(kernels, args.q + offset(row), D, stride, args.scale, padded,
                        from_row(queries.own, row, stride));
        if (ring.sinks > 0)
          quantise_padded(kernels, args.q_sink + offset(row), D, stride, args.scale, padded,
                          from_row(queries.sink, row, stride));
      }
      std::fill_n(queries.max, queries.rows, -INFINITY);
      std::fill_n(queries.total, queries.rows, 0.0f);
      std::fill_n(queries.sum, queries.rows * D, 0.0f);
      std::fill_n(queries.ones, D, 1.0f);

      const uint64_t behind = queries.first + tokens;
      attend(kernels, args, kv, queries, queries.sink, 0, std::min<uint64_t>(ring.sinks, behind), kNoLimit);
      const uint64_t oldest = std::max<uint64_t>(
          ring.sinks, queries.first + 1 > ring.window ? queries.first + 1 - ring.window : 0);
      attend(kernels, args, kv, queries, queries.own, oldest, behind, ring.window);

      for (size_t row = 0; row < queries.rows; ++row) {
        const float inverse = 1.0f / queries.total[row];
        float* y = args.y + offset(row);
        for (size_t d = 0; d < D; ++d) y[d] = queries.sum[row * D + d] * inverse;
      }
    }
  }
}

}  // namespace allmem
