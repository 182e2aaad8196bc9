// The window attention of training (attention.py) with its gradient, fused: scores live in blocks of queries
// and are computed again in the gradient, so that memory does not grow with T · window.
//
// Shapes, for B sequences of T tokens, K KV heads of `group` query heads, D channels:
//   q, q_sink [B, K, group, T, D], rotated for keys of the window and for sinks; k rotated, v [B, K, T, D];
//   out as q; lse [B, K, group, T], the logarithm of a query's sum of exponentials. All contiguous, float32.
// Token t sees tokens s with max(sinks, t − window + 1) ≤ s ≤ t, and sinks s ≤ t.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/utils/pybind.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "product.h"

namespace {

constexpr int64_t kQueries = 64;  // of a block

struct Shape {
  int64_t batch, heads, group, tokens, dim, window, sinks;
  int64_t blocks() const { return (tokens + kQueries - 1) / kQueries; }
};

// A block of queries of one KV head: `count` tokens from `first` of each query head, against the keys from
// `begin`.
class Block {
 public:
  explicit Block(const Shape& shape)
      : s(shape),
        q(s.group * kQueries * s.dim),
        q_sink(q.size()),
        out(q.size()),
        scores(s.group * kQueries * (s.window + kQueries)),
        sink_scores(s.group * kQueries * std::max<int64_t>(s.sinks, 1)) {}

  void at(int64_t index) {
    first = index * kQueries;
    count = std::min(kQueries, s.tokens - first);
    begin = std::max(s.sinks, first - s.window + 1);
    keys = std::max<int64_t>(0, first + count - begin);
    rows = s.group * count;
  }

  // The block's rows of all query heads, behind each other: [group, T, D] -> [group · count, D].
  void gather(const float* from, float* to) const {
    for (int64_t g = 0; g < s.group; ++g)
      std::copy_n(from + (g * s.tokens + first) * s.dim, count * s.dim, to + g * count * s.dim);
  }
  void scatter(const float* from, float* to) const {
    for (int64_t g = 0; g < s.group; ++g)
      std::copy_n(from + g * count * s.dim, count * s.dim, to + (g * s.tokens + first) * s.dim);
  }

  // scores [rows, keys] and sink_scores [rows, sinks] of the gathered queries.
  void multiply(const float* k) {
    if (keys > 0) product(false, true, rows, keys, s.dim, q.data(), k + begin * s.dim, scores.data(), false);
    if (s.sinks > 0) product(false, true, rows, s.sinks, s.dim, q_sink.data(), k, sink_scores.data(), false);
  }

  // Calls f(row, its token, its scores, first and end of what it sees, its sink scores, how many sinks it
  // sees).
  template <class F>
  void for_each_row(F f) {
    for (int64_t g = 0; g < s.group; ++g)
      for (int64_t i = 0; i < count; ++i) {
        const int64_t row = g * count + i, t = first + i;
        const int64_t low = std::max<int64_t>(0, std::max(s.sinks, t - s.window + 1) - begin);
        f(g * s.tokens + t, row, scores.data() + row * keys, low, std::max(low, t + 1 - begin),
          sink_scores.data() + row * s.sinks, std::min(s.sinks, t + 1));
      }
  }

  const Shape s;
  int64_t first = 0, count = 0, begin = 0, keys = 0, rows = 0;
  std::vector<float> q, q_sink, out, scores, sink_scores;
};

// x[i] = exp(scale x[i] − shift) in [low, end) and 0 elsewhere, of n; returns the sum.
float exponentials(float* x, int64_t low, int64_t end, int64_t n, float scale, float shift) {
  float sum = 0.0F;
  std::fill(x, x + low, 0.0F);
  for (int64_t i = low; i < end; ++i) {
    x[i] = std::exp(scale * x[i] - shift);
    sum += x[i];
  }
  std::fill(x + end, x + n, 0.0F);
  return sum;
}

Shape shape_of(const at::Tensor& q, int64_t window, int64_t sinks) {
  return {q.size(0), q.size(1), q.size(2), q.size(3), q.size(4), window, std::min(sinks, q.size(3))};
}

// Returns out and lse.
std::vector<at::Tensor> forward(const at::Tensor& q, const at::Tensor& q_sink, const at::Tensor& k,
                                const at::Tensor& v, int64_t window, int64_t sinks) {
  const Shape s = shape_of(q, window, sinks);
  const float scale = 1.0F / std::sqrt(static_cast<float>(s.dim));
  at::Tensor out = at::empty_like(q), lse = at::empty({s.batch, s.heads, s.group, s.tokens}, q.options());
  const float *qs = q.const_data_ptr<float>(), *q_sinks = q_sink.const_data_ptr<float>();
  const float *ks = k.const_data_ptr<float>(), *vs = v.const_data_ptr<float>();
  float *outs = out.data_ptr<float>(), *lses = lse.data_ptr<float>();
  at::parallel_for(0, s.batch * s.heads, 1, [&](int64_t begin, int64_t end) {
    const at::InferenceMode without_autograd;
    Block block(s);
    for (int64_t head = begin; head < end; ++head) {
      const int64_t q_at = head * s.group * s.tokens * s.dim, k_at = head * s.tokens * s.dim;
      for (int64_t b = 0; b < s.blocks(); ++b) {
        block.at(b);
        block.gather(qs + q_at, block.q.data());
        block.gather(q_sinks + q_at, block.q_sink.data());
        block.multiply(ks + k_at);
        block.for_each_row(
            [&](int64_t token, int64_t, float* x, int64_t low, int64_t high, float* sink, int64_t n_sinks) {
              float most = std::numeric_limits<float>::lowest();
              for (int64_t i = low; i < high; ++i) most = std::max(most, x[i]);
              for (int64_t i = 0; i < n_sinks; ++i) most = std::max(most, sink[i]);
              const float sum = exponentials(x, low, high, block.keys, scale, scale * most) +
                                exponentials(sink, 0, n_sinks, s.sinks, scale, scale * most);
              for (int64_t i = low; i < high; ++i) x[i] /= sum;
              for (int64_t i = 0; i < n_sinks; ++i) sink[i] /= sum;
              lses[head * s.group * s.tokens + token] = scale * most + std::log(sum);
            });
        std::fill_n(block.out.data(), block.rows * s.dim, 0.0F);
        const float* vb = vs + k_at;
        if (block.keys > 0)
          product(false, false, block.rows, s.dim, block.keys, block.scores.data(), vb + block.begin * s.dim,
                  block.out.data(), true);
        if (s.sinks > 0)
          product(false, false, block.rows, s.dim, s.sinks, block.sink_scores.data(), vb, block.out.data(),
                  true);
        block.scatter(block.out.data(), outs + q_at);
      }
    }
  });
  return {out, lse};
}

// The gradients of q, q_sink, k and v from that of out.
std::vector<at::Tensor> backward(const at::Tensor& d_out, const at::Tensor& out, const at::Tensor& lse,
                                 const at::Tensor& q, const at::Tensor& q_sink, const at::Tensor& k,
                                 const at::Tensor& v, int64_t window, int64_t sinks) {
  const Shape s = shape_of(q, window, sinks);
  const float scale = 1.0F / std::sqrt(static_cast<float>(s.dim));
  at::Tensor d_q = at::empty_like(q), d_q_sink = at::zeros_like(q);
  at::Tensor d_k = at::zeros_like(k), d_v = at::zeros_like(v);
  const float *qs = q.const_data_ptr<float>(), *q_sinks = q_sink.const_data_ptr<float>();
  const float *ks = k.const_data_ptr<float>(), *vs = v.const_data_ptr<float>();
  const float *outs = out.const_data_ptr<float>(), *lses = lse.const_data_ptr<float>();
  const float* d_outs = d_out.const_data_ptr<float>();
  float *d_qs = d_q.data_ptr<float>(), *d_q_sinks = d_q_sink.data_ptr<float>();
  float *d_ks = d_k.data_ptr<float>(), *d_vs = d_v.data_ptr<float>();
  at::parallel_for(0, s.batch * s.heads, 1, [&](int64_t begin, int64_t end) {
    const at::InferenceMode without_autograd;
    Block block(s);
    std::vector<float> d(block.out.size()), d_scores(block.scores.size()), d_sinks(block.sink_scores.size());
    for (int64_t head = begin; head < end; ++head) {
      const int64_t q_at = head * s.group * s.tokens * s.dim, k_at = head * s.tokens * s.dim;
      for (int64_t b = 0; b < s.blocks(); ++b) {
        block.at(b);
        block.gather(qs + q_at, block.q.data());
        block.gather(q_sinks + q_at, block.q_sink.data());
        block.gather(outs + q_at, block.out.data());
        block.gather(d_outs + q_at, d.data());
        block.multiply(ks + k_at);
        const int64_t window_at = k_at + block.begin * s.dim;
        if (block.keys > 0)
          product(false, true, block.rows, block.keys, s.dim, d.data(), vs + window_at, d_scores.data(),
                  false);
        if (s.sinks > 0)
          product(false, true, block.rows, s.sinks, s.dim, d.data(), vs + k_at, d_sinks.data(), false);
        block.for_each_row([&](int64_t token, int64_t row, float* x, int64_t low, int64_t high, float* sink,
                               int64_t n_sinks) {
          const float shift = lses[head * s.group * s.tokens + token];
          exponentials(x, low, high, block.keys, scale, shift);
          exponentials(sink, 0, n_sinks, s.sinks, scale, shift);
          float along = 0.0F;
          for (int64_t i = 0; i < s.dim; ++i) along += d[row * s.dim + i] * block.out[row * s.dim + i];
          float *d_x = d_scores.data() + row * block.keys, *d_sink = d_sinks.data() + row * s.sinks;
          for (int64_t i = 0; i < block.keys; ++i) d_x[i] = scale * x[i] * (d_x[i] - along);
          for (int64_t i = 0; i < s.sinks; ++i) d_sink[i] = scale * sink[i] * (d_sink[i] - along);
        });
        if (block.keys > 0) {
          product(true, false, block.keys, s.dim, block.rows, block.scores.data(), d.data(), d_vs + window_at,
                  true);
          product(true, false, block.keys, s.dim, block.rows, d_scores.data(), block.q.data(),
                  d_ks + window_at, true);
          product(false, false, block.rows, s.dim, block.keys, d_scores.data(), ks + window_at,
                  block.out.data(), false);
        } else {
          std::fill_n(block.out.data(), block.rows * s.dim, 0.0F);
        }
        block.scatter(block.out.data(), d_qs + q_at);
        if (s.sinks > 0) {
          product(true, false, s.sinks, s.dim, block.rows, block.sink_scores.data(), d.data(), d_vs + k_at,
                  true);
          product(true, false, s.sinks, s.dim, block.rows, d_sinks.data(), block.q_sink.data(), d_ks + k_at,
                  true);
          product(false, false, block.rows, s.dim, s.sinks, d_sinks.data(), ks + k_at, block.out.data(),
                  false);
          block.scatter(block.out.data(), d_q_sinks + q_at);
        }
      }
    }
  });
  return {d_q, d_q_sink, d_k, d_v};
}

}  // namespace

PYBIND11_MODULE(TORCH_EXTENSION_NAME, module) {
  module.def("forward", &forward);
  module.def("backward", &backward);
}
