// Sliding-window attention with sinks (SWA), scalar, two passes over the keys of each query.
#include <algorithm>
#include <cmath>

#include "kernels/ref/ref.h"

namespace allmem::ref {

namespace {

// The row of K or V of token s for one KV head: in this call's tensor, or in the ring as earlier calls left
// it.
const float* row_of(const AttentionArgs& a, const float* current, const float* ring, uint64_t s, size_t kv) {
  if (s >= a.position) return current + ((s - a.position) * a.kv_heads + kv) * a.dim;
  const uint64_t slot = s < a.sinks ? s : a.sinks + (s - a.sinks) % a.window;
  return ring + (kv * (a.sinks + a.window) + slot) * a.dim;
}

// y = Σ_s softmax_s(scale · q·k_s) v_s over s < S (with q_sink) and max(S, t - W + 1) <= s <= t (with q).
void attend(const AttentionArgs& a, uint64_t t, const float* q, const float* q_sink, size_t kv, float* scores,
            float* y) {
  const size_t sink_count = static_cast<size_t>(std::min<uint64_t>(a.sinks, t + 1));
  const uint64_t window_begin = std::max<uint64_t>(a.sinks, t + 1 > a.window ? t + 1 - a.window : 0);
  const size_t window_count = window_begin <= t ? static_cast<size_t>(t + 1 - window_begin) : 0;
  const size_t count = sink_count + window_count;
  const auto token = [&](size_t i) { return i < sink_count ? i : window_begin + (i - sink_count); };

  float max_score = -INFINITY;
  for (size_t i = 0; i < count; ++i) {
    const float* query = i < sink_count ? q_sink : q;
    const float* key = row_of(a, a.k, a.k_ring, token(i), kv);
    double dot = 0;
    for (size_t d = 0; d < a.dim; ++d) dot += double{query[d]} * double{key[d]};
    scores[i] = static_cast<float>(dot * double{a.scale});
    max_score = std::max(max_score, scores[i]);
  }
  double total = 0;
  for (size_t i = 0; i < count; ++i) {
    scores[i] = std::exp(scores[i] - max_score);
    total += double{scores[i]};
  }
  for (size_t d = 0; d < a.dim; ++d) {
    double sum = 0;
    for (size_t i = 0; i < count; ++i)
      sum += double{scores[i]} * double{row_of(a, a.v, a.v_ring, token(i), kv)[d]};
    y[d] = static_cast<float>(sum / total);
  }
}

}  // namespace

size_t attention_scratch(const AttentionArgs& args) { return args.sinks + args.window; }

void attention(const AttentionArgs& args, size_t kv_begin, size_t kv_end, float* scratch) {
  const size_t group = args.heads / args.kv_heads;
  for (size_t i = 0; i < args.tokens; ++i) {
    for (size_t head = kv_begin * group; head < kv_end * group; ++head) {
      const size_t offset = (i * args.heads + head) * args.dim;
      attend(args, args.position + i, args.q + offset, args.q_sink + offset, head / group, scratch,
             args.y + offset);
    }
  }
}

void softmax_step(float* scores, const float* scales, const SeenKeys* seen, size_t rows, float* max,
                  float* total, float* shrink) {
  for (size_t i = 0; i < rows; ++i) {
    float* row = scores + i * kKeyTile;
    float largest = max[i];
    for (size_t j = seen[i].begin; j < seen[i].end; ++j) largest = std::max(largest, row[j]);
    double added = 0;
    for (size_t j = 0; j < kKeyTile; ++j) {
      const bool is_seen = j >= seen[i].begin && j < seen[i].end;
      const float weight = is_seen ? std::exp(row[j] - largest) : 0.0f;
      added += double{weight};
      row[j] = is_seen ? weight * scales[j] : 0.0f;
    }
    shrink[i] = max[i] == largest ? 1.0f : std::exp(max[i] - largest);  // 0 the first time
    total[i] = static_cast<float>(double{total[i]} * double{shrink[i]} + added);
    max[i] = largest;
  }
}

}  // namespace allmem::ref
