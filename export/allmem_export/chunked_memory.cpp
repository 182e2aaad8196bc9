// The memory of training (memory.py's chunked_memory) with its gradient, fused: what PyTorch does in hundreds
// of small operations a chunk happens in place, in float32.
//
// Shapes, for B sequences of T tokens, K KV heads of `group` query heads, D channels, h hidden units, n
// chunks:
//   w_gate, w_up [K, h, D], w_down [K, D, h]; q [B, K, group, T, D]; k, v [B, K, T, D]; eta [B, K, T];
//   beta [B, K, n], the mean of a chunk. All contiguous. The formulas are those of memory.py; the gradient
//   is derived from them by hand and tested against autograd.
#include <ATen/Parallel.h>
#include <torch/csrc/utils/pybind.h>

#include <cmath>
#include <vector>

#include "product.h"

namespace {

// Never infinite on the way: fast division is not defined there.
inline float sigmoid(float x) { return 1.0F / (1.0F + std::exp(std::min(-x, 80.0F))); }

struct Shape {
  int64_t batch, heads, group, tokens, dim, hidden, chunk;
  int64_t chunks() const { return (tokens + chunk - 1) / chunk; }
  int64_t matrix() const { return hidden * dim; }
};

// The three matrices of a memory behind each other: gate [h, D], up [h, D], down [D, h].
struct Weights {
  float *gate, *up, *down;
  Weights(float* all, int64_t matrix) : gate(all), up(all + matrix), down(all + 2 * matrix) {}
};

// scale[r] = norm[r] / ‖row r‖, and Ŵ = scale W. Rows of W_g and W_u have D entries, of W_d h.
void normalize(const float* w, const float* norm, float* scale, float* out, int64_t rows, int64_t cols) {
  for (int64_t r = 0; r < rows; ++r) {
    float sum = 0.0F;
    for (int64_t i = 0; i < cols; ++i) sum += w[r * cols + i] * w[r * cols + i];
    scale[r] = norm[r] / std::sqrt(std::max(sum, 1e-30F));
    for (int64_t i = 0; i < cols; ++i) out[r * cols + i] = scale[r] * w[r * cols + i];
  }
}

// The gradient of `normalize`: d_w += scale (d − ŵ (ŵ·d) / norm²), d_norm[r] += (ŵ·d) / norm.
void normalize_backward(const float* hat, const float* norm, const float* scale, const float* d, float* d_w,
                        float* d_norm, int64_t rows, int64_t cols) {
  for (int64_t r = 0; r < rows; ++r) {
    float dot = 0.0F;
    for (int64_t i = 0; i < cols; ++i) dot += hat[r * cols + i] * d[r * cols + i];
    const float inverse = norm[r] > 0.0F ? 1.0F / norm[r] : 0.0F;
    const float along = dot * inverse * inverse;
    for (int64_t i = 0; i < cols; ++i)
      d_w[r * cols + i] += scale[r] * (d[r * cols + i] - along * hat[r * cols + i]);
    d_norm[r] += dot * inverse;
  }
}

void row_norms(const float* w, float* norm, int64_t rows, int64_t cols) {
  for (int64_t r = 0; r < rows; ++r) {
    float sum = 0.0F;
    for (int64_t i = 0; i < cols; ++i) sum += w[r * cols + i] * w[r * cols + i];
    norm[r] = std::sqrt(sum);
  }
}

// What one head of one sequence works with.
class Head {
 public:
  explicit Head(const Shape& shape)
      : s(shape),
        rows(shape.group * shape.chunk),
        norm(2 * s.hidden + s.dim),
        scale(norm.size()),
        hat(3 * s.matrix()),
        z(rows * s.dim),
        out(rows * s.dim),
        a(rows * s.hidden),
        u(rows * s.hidden),
        h(rows * s.hidden),
        ka(s.chunk * s.hidden),
        ku(ka.size()),
        ks(ka.size()),
        kt(ka.size()),
        km(ka.size()),
        dm(ka.size()),
        r(s.chunk * s.dim),
        e(r.size()) {}

  void initial_norms(const float* gate, const float* up, const float* down) {
    row_norms(gate, norm.data(), s.hidden, s.dim);
    row_norms(up, norm.data() + s.hidden, s.hidden, s.dim);
    row_norms(down, norm.data() + 2 * s.hidden, s.dim, s.hidden);
  }

  // The rows of `count` tokens of all query heads, behind each other: [group, T, D] -> [group · count, D].
  void gather(const float* from, float* to, int64_t first, int64_t count) const {
    for (int64_t g = 0; g < s.group; ++g)
      std::copy_n(from + (g * s.tokens + first) * s.dim, count * s.dim, to + g * count * s.dim);
  }
  void scatter(const float* from, float* to, int64_t first, int64_t count) const {
    for (int64_t g = 0; g < s.group; ++g)
      std::copy_n(from + g * count * s.dim, count * s.dim, to + (g * s.tokens + first) * s.dim);
  }

  // a = z W_gᵀ, u = z W_uᵀ, h = silu(a) u for n rows of z.
  void hidden_of(const Weights& w, int64_t n) {
    product(false, true, n, s.hidden, s.dim, z.data(), w.gate, a.data(), false);
    product(false, true, n, s.hidden, s.dim, z.data(), w.up, u.data(), false);
    for (int64_t i = 0; i < n * s.hidden; ++i) h[i] = a[i] * sigmoid(a[i]) * u[i];
  }

  // Everything of a chunk's gradient up to dm = e Ŵ_d: see memory.py, `gradient`.
  void errors(const float* k, const float* v, const float* eta, int64_t count) {
    Weights w(hat.data(), s.matrix());
    product(false, true, count, s.hidden, s.dim, k, w.gate, ka.data(), false);
    product(false, true, count, s.hidden, s.dim, k, w.up, ku.data(), false);
    for (int64_t i = 0; i < count * s.hidden; ++i) {
      const float sigma = sigmoid(ka[i]);
      ks[i] = ka[i] * sigma;
      kt[i] = sigma + ks[i] * (1.0F - sigma);
      km[i] = ks[i] * ku[i];
    }
    product(false, true, count, s.dim, s.hidden, km.data(), w.down, r.data(), false);
    for (int64_t t = 0; t < count; ++t)
      for (int64_t i = 0; i < s.dim; ++i) {
        const int64_t j = t * s.dim + i;
        r[j] += k[j] - v[j];
        e[j] = r[j] * eta[t];
      }
    product(false, false, count, s.hidden, s.dim, e.data(), w.down, dm.data(), false);
  }

  void normalize_all(const float* weight) {
    Weights w(const_cast<float*>(weight), s.matrix()), n(hat.data(), s.matrix());
    normalize(w.gate, norm.data(), scale.data(), n.gate, s.hidden, s.dim);
    normalize(w.up, norm.data() + s.hidden, scale.data() + s.hidden, n.up, s.hidden, s.dim);
    normalize(w.down, norm.data() + 2 * s.hidden, scale.data() + 2 * s.hidden, n.down, s.dim, s.hidden);
  }

  Shape s;
  int64_t rows;
  std::vector<float> norm, scale, hat, z, out, a, u, h, ka, ku, ks, kt, km, dm, r, e;
};

Shape shape_of(const at::Tensor& w_gate, const at::Tensor& q, int64_t chunk) {
  return {q.size(0), q.size(1), q.size(2), q.size(3), q.size(4), w_gate.size(1), chunk};
}

// Returns what was read [B, K, group, T, D], and the weights and the momentum before each chunk,
// each [B, K, n, 3, h · D].
std::vector<at::Tensor> forward(const at::Tensor& w_gate, const at::Tensor& w_up, const at::Tensor& w_down,
                                const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                const at::Tensor& eta, const at::Tensor& beta, int64_t chunk) {
  const Shape s = shape_of(w_gate, q, chunk);
  const int64_t all = 3 * s.matrix(), n = s.chunks();
  at::Tensor read = at::empty_like(q);
  at::Tensor weights = at::empty({s.batch, s.heads, n, 3, s.matrix()}, q.options());
  at::Tensor momenta = at::zeros_like(weights);
  const float* wg = w_gate.const_data_ptr<float>();
  const float* wu = w_up.const_data_ptr<float>();
  const float* wd = w_down.const_data_ptr<float>();
  const float *qs = q.const_data_ptr<float>(), *ks = k.const_data_ptr<float>(),
              *vs = v.const_data_ptr<float>();
  const float *etas = eta.const_data_ptr<float>(), *betas = beta.const_data_ptr<float>();
  float *reads = read.data_ptr<float>(), *ws = weights.data_ptr<float>(), *ms = momenta.data_ptr<float>();

  at::parallel_for(0, s.batch * s.heads, 1, [&](int64_t begin, int64_t end) {
    const at::InferenceMode without_autograd;
    Head head(s);
    for (int64_t index = begin; index < end; ++index) {
      const int64_t kv = index % s.heads, m = s.matrix();
      head.initial_norms(wg + kv * m, wu + kv * m, wd + kv * m);
      float* weight = ws + index * n * all;
      float* momentum = ms + index * n * all;
      std::copy_n(wg + kv * m, m, weight);
      std::copy_n(wu + kv * m, m, weight + m);
      std::copy_n(wd + kv * m, m, weight + 2 * m);
      const int64_t q_at = index * s.group * s.tokens * s.dim, k_at = index * s.tokens * s.dim;
      for (int64_t c = 0; c < n; ++c, weight += all, momentum += all) {
        const int64_t first = c * chunk, count = std::min(chunk, s.tokens - first), rows = s.group * count;
        head.gather(qs + q_at, head.z.data(), first, count);
        Weights w(weight, m);
        head.hidden_of(w, rows);
        std::copy_n(head.z.data(), rows * s.dim, head.out.data());
        product(false, true, rows, s.dim, s.hidden, head.h.data(), w.down, head.out.data(), true);
        head.scatter(head.out.data(), reads + q_at, first, count);
        if (c + 1 == n) break;  // nothing reads what the last chunk would learn
        head.normalize_all(weight);
        const float* kc = ks + k_at + first * s.dim;
        head.errors(kc, vs + k_at + first * s.dim, etas + index * s.tokens + first, count);
        Weights next(momentum + all, m);
        const float decay = betas[index * n + c];
        for (int64_t i = 0; i < all; ++i) momentum[all + i] = decay * momentum[i];
        product(true, false, s.dim, s.hidden, count, head.e.data(), head.km.data(), next.down, true);
        for (int64_t i = 0; i < count * s.hidden; ++i) {
          const float d = head.dm[i];
          head.dm[i] = d * head.ks[i];
          head.km[i] = d * head.ku[i] * head.kt[i];  // m is not needed any more: da takes its place
        }
        product(true, false, s.hidden, s.dim, count, head.km.data(), kc, next.gate, true);
        product(true, false, s.hidden, s.dim, count, head.dm.data(), kc, next.up, true);
        for (int64_t i = 0; i < all; ++i) weight[all + i] = head.hat[i] - momentum[all + i];
      }
    }
  });
  return {read, weights, momenta};
}

// The gradients of w_gate, w_up, w_down, q, k, v, eta and beta from that of what was read.
std::vector<at::Tensor> backward(const at::Tensor& d_read, const at::Tensor& weights,
                                 const at::Tensor& momenta, const at::Tensor& w_gate, const at::Tensor& w_up,
                                 const at::Tensor& w_down, const at::Tensor& q, const at::Tensor& k,
                                 const at::Tensor& v, const at::Tensor& eta, const at::Tensor& beta,
                                 int64_t chunk) {
  const Shape s = shape_of(w_gate, q, chunk);
  const int64_t m = s.matrix(), all = 3 * m, n = s.chunks(), norms = 2 * s.hidden + s.dim;
  at::Tensor d_q = at::empty_like(q), d_k = at::zeros_like(k), d_v = at::zeros_like(v);
  at::Tensor d_eta = at::zeros_like(eta), d_beta = at::zeros_like(beta);
  at::Tensor d_first = at::zeros({s.batch, s.heads, all}, q.options());  // of W_0, by sequence
  const float *ws = weights.const_data_ptr<float>(), *ms = momenta.const_data_ptr<float>();
  const float *qs = q.const_data_ptr<float>(), *ks = k.const_data_ptr<float>(),
              *vs = v.const_data_ptr<float>();
  const float *etas = eta.const_data_ptr<float>(), *betas = beta.const_data_ptr<float>();
  const float* d_reads = d_read.const_data_ptr<float>();
  float *d_qs = d_q.data_ptr<float>(), *d_ks = d_k.data_ptr<float>(), *d_vs = d_v.data_ptr<float>();
  float *d_etas = d_eta.data_ptr<float>(), *d_betas = d_beta.data_ptr<float>();
  float* d_firsts = d_first.data_ptr<float>();

  at::parallel_for(0, s.batch * s.heads, 1, [&](int64_t begin, int64_t end) {
    const at::InferenceMode without_autograd;
    Head head(s);
    std::vector<float> d_out(head.out.size()), d_h(head.h.size());
    std::vector<float> d_hat(all), d_s(all), d_norm(norms);
    std::vector<float> d_da(head.ka.size()), d_ds(head.ka.size()), d_e(head.e.size()), d_m(head.ka.size());
    for (int64_t index = begin; index < end; ++index) {
      const float* first_weight = ws + index * n * all;
      head.initial_norms(first_weight, first_weight + m, first_weight + 2 * m);
      float* d_weight = d_firsts + index * all;  // of the weights after the chunk at hand; at the end of W_0
      std::fill(d_s.begin(), d_s.end(), 0.0F);
      std::fill(d_norm.begin(), d_norm.end(), 0.0F);
      const int64_t q_at = index * s.group * s.tokens * s.dim, k_at = index * s.tokens * s.dim;
      for (int64_t c = n; c-- > 0;) {
        const int64_t first = c * chunk, count = std::min(chunk, s.tokens - first), rows = s.group * count;
        const float* weight = first_weight + c * all;
        Weights d_w(d_weight, m);
        if (c + 1 < n) {  // what the chunk learned: S' = β̄ S + G, W' = Ŵ − S'
          const float* kc = ks + k_at + first * s.dim;
          float *d_kc = d_ks + k_at + first * s.dim, *d_vc = d_vs + k_at + first * s.dim;
          const float* eta_c = etas + index * s.tokens + first;
          head.normalize_all(weight);
          head.errors(kc, vs + k_at + first * s.dim, eta_c, count);
          const float* momentum = ms + (index * n + c) * all;
          for (int64_t i = 0; i < all; ++i) d_s[i] -= d_weight[i];
          float d_decay = 0.0F;
          for (int64_t i = 0; i < all; ++i) d_decay += momentum[i] * d_s[i];
          d_betas[index * n + c] = d_decay;
          std::copy_n(d_weight, all, d_hat.data());
          std::fill_n(d_weight, all, 0.0F);
          Weights d_g(d_s.data(), m), w(head.hat.data(), m), d_w_hat(d_hat.data(), m);
          // G_gate = daᵀ k, G_up = dsᵀ k, G_down = eᵀ m
          product(false, true, count, s.hidden, s.dim, kc, d_g.gate, d_da.data(), false);
          product(false, true, count, s.hidden, s.dim, kc, d_g.up, d_ds.data(), false);
          product(false, true, count, s.dim, s.hidden, head.km.data(), d_g.down, d_e.data(), false);
          product(false, false, count, s.hidden, s.dim, head.e.data(), d_g.down, d_m.data(), false);
          // In this order, so that buffers can be used again: da and ds into a and u (of reading, free here),
          // the gradient of dm into h.
          float *da = head.a.data(), *ds = head.u.data(), *d_dm = head.h.data();
          for (int64_t i = 0; i < count * s.hidden; ++i) {
            da[i] = head.dm[i] * head.ku[i] * head.kt[i];
            ds[i] = head.dm[i] * head.ks[i];
            d_dm[i] = d_da[i] * head.ku[i] * head.kt[i] + d_ds[i] * head.ks[i];
          }
          product(false, false, count, s.dim, s.hidden, da, d_g.gate, d_kc, true);
          product(false, false, count, s.dim, s.hidden, ds, d_g.up, d_kc, true);
          product(false, true, count, s.dim, s.hidden, d_dm, w.down, d_e.data(), true);  // dm = e Ŵ_d
          product(true, false, s.dim, s.hidden, count, head.e.data(), d_dm, d_w_hat.down, true);
          for (int64_t t = 0; t < count; ++t) {  // e = η r, r = k + m Ŵ_dᵀ − v
            float d_rate = 0.0F;
            for (int64_t i = 0; i < s.dim; ++i) {
              const int64_t j = t * s.dim + i;
              d_rate += d_e[j] * head.r[j];
              d_e[j] *= eta_c[t];
              d_kc[j] += d_e[j];
              d_vc[j] -= d_e[j];
            }
            d_etas[index * s.tokens + first + t] = d_rate;
          }
          product(false, false, count, s.hidden, s.dim, d_e.data(), w.down, d_m.data(), true);
          product(true, false, s.dim, s.hidden, count, d_e.data(), head.km.data(), d_w_hat.down, true);
          for (int64_t i = 0; i < count * s.hidden; ++i) {
            const float a = head.ka[i], u = head.ku[i], t = head.kt[i], dm = head.dm[i];
            const float sigma = sigmoid(a);
            const float second = sigma * (1.0F - sigma) * (2.0F + a * (1.0F - 2.0F * sigma));
            const float d_silu = d_ds[i] * dm + d_m[i] * u;  // ds = dm s, m = s u
            const float d_u = d_da[i] * dm * t + d_m[i] * head.ks[i];
            d_da[i] = d_silu * t + d_da[i] * dm * u * second;  // da = dm u t
            d_ds[i] = d_u;
          }
          product(true, false, s.hidden, s.dim, count, d_da.data(), kc, d_w_hat.gate, true);
          product(true, false, s.hidden, s.dim, count, d_ds.data(), kc, d_w_hat.up, true);
          product(false, false, count, s.dim, s.hidden, d_da.data(), w.gate, d_kc, true);
          product(false, false, count, s.dim, s.hidden, d_ds.data(), w.up, d_kc, true);
          const float *norm = head.norm.data(), *scale = head.scale.data();
          normalize_backward(w.gate, norm, scale, d_w_hat.gate, d_w.gate, d_norm.data(), s.hidden, s.dim);
          normalize_backward(w.up, norm + s.hidden, scale + s.hidden, d_w_hat.up, d_w.up,
                             d_norm.data() + s.hidden, s.hidden, s.dim);
          normalize_backward(w.down, norm + 2 * s.hidden, scale + 2 * s.hidden, d_w_hat.down, d_w.down,
                             d_norm.data() + 2 * s.hidden, s.dim, s.hidden);
          const float decay = betas[index * n + c];
          for (int64_t i = 0; i < all; ++i) d_s[i] *= decay;
        }
        // what the chunk read: out = z + silu(z W_gᵀ) (z W_uᵀ) W_dᵀ
        Weights w(const_cast<float*>(weight), m);
        head.gather(qs + q_at, head.z.data(), first, count);
        head.gather(d_reads + q_at, d_out.data(), first, count);
        head.hidden_of(w, rows);
        product(false, false, rows, s.hidden, s.dim, d_out.data(), w.down, d_h.data(), false);
        product(true, false, s.dim, s.hidden, rows, d_out.data(), head.h.data(), d_w.down, true);
        for (int64_t i = 0; i < rows * s.hidden; ++i) {
          const float a = head.a[i], sigma = sigmoid(a), silu = a * sigma, d = d_h[i];
          head.a[i] = d * head.u[i] * (sigma + silu * (1.0F - sigma));
          head.u[i] = d * silu;
        }
        product(true, false, s.hidden, s.dim, rows, head.a.data(), head.z.data(), d_w.gate, true);
        product(true, false, s.hidden, s.dim, rows, head.u.data(), head.z.data(), d_w.up, true);
        product(false, false, rows, s.dim, s.hidden, head.a.data(), w.gate, d_out.data(), true);
        product(false, false, rows, s.dim, s.hidden, head.u.data(), w.up, d_out.data(), true);
        head.scatter(d_out.data(), d_qs + q_at, first, count);
      }
      // norm0 = ‖row of W_0‖
      const float* norm = head.norm.data();
      for (int64_t r = 0; r < norms; ++r) {
        const int64_t cols = r < 2 * s.hidden ? s.dim : s.hidden;
        const int64_t at = r < 2 * s.hidden ? r * s.dim : 2 * m + (r - 2 * s.hidden) * s.hidden;
        const float factor = norm[r] > 0.0F ? d_norm[r] / norm[r] : 0.0F;
        for (int64_t i = 0; i < cols; ++i) d_weight[at + i] += factor * first_weight[at + i];
      }
    }
  });
  const at::Tensor sum = d_first.sum(0);  // [K, 3 h D]
  return {sum.slice(1, 0, m).reshape_as(w_gate),
          sum.slice(1, m, 2 * m).reshape_as(w_up),
          sum.slice(1, 2 * m, all).reshape_as(w_down),
          d_q,
          d_k,
          d_v,
          d_eta,
          d_beta};
}

}  // namespace

PYBIND11_MODULE(TORCH_EXTENSION_NAME, module) {
  module.def("forward", &forward);
  module.def("backward", &backward);
}
