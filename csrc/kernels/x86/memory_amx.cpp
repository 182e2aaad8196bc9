// What the test-time memory learns from a block of tokens, with AMX. Symbols as in ref/memory.cpp.
//
// What belongs to a token is a column here, of matrices [h, T] and [D, T]: the fast weights are then left
// factors as they lie in memory, and what scales their rows scales rows of the results. Every factor is split
// into bfloat16 once; one that two products need in different forms gets the second from the same numbers
// while they are at hand. G is read and written once.
#include "kernels/scratch.h"
#include "kernels/x86/amx.h"
#include "kernels/x86/avx512vnni.h"
#include "kernels/x86/bfloat16_tiles.h"

namespace allmem::amx {

namespace {

using avx512vnni::smaller;

constexpr size_t kFewTokens = 8;       // below it tiles stay half empty
constexpr size_t kTokensAtOnce = 128;  // what belongs to them then stays in the second-level cache

constexpr size_t whole(size_t n) { return (n + kSide - 1) / kSide * kSide; }

// A factor with `outer` rows or columns and a sum over `sum`, both whole.
Factor factor(Scratch& scratch, size_t outer, size_t sum) {
  return {reinterpret_cast<Split*>(scratch.floats(outer * sum)), sum / kSide};
}

float* aligned(float* memory) {
  const size_t beyond = reinterpret_cast<uintptr_t>(memory) % 64;
  return memory + (64 - beyond) % 64 / sizeof(float);
}

// Calls use(begin, count) for pieces of 32.
template <class Use>
[[gnu::always_inline]] inline void in_pieces(size_t n, Use use) {
  for (size_t begin = 0; begin < n; begin += kSide) use(begin, smaller(kSide, n - begin));
}

// A row into the second-level cache: hardware notices too late. Always inlined: GCC takes a function that
// only prefetches for one without effect, and drops its calls.
[[gnu::always_inline]] inline void fetch(const float* row, size_t cols) {
  for (size_t c = 0; c < cols; c += kLanes) _mm_prefetch(reinterpret_cast<const char*>(row + c), _MM_HINT_T1);
}

// The two tiles of a left factor that x [rows, cols] is for step s.
void split_left(const float* x, size_t stride, size_t rows, size_t cols, const Factor& to, size_t tile,
                size_t s) {
  split_rows(x, stride, rows, cols, to.tile(tile, s));
  split_rows(x + kLanes * stride, stride, rows > kLanes ? rows - kLanes : 0, cols, to.tile(tile + 1, s));
}

// The two tiles of a right factor that x [rows, cols] is for step s.
void split_right(const float* x, size_t stride, size_t rows, size_t cols, const Factor& to, size_t tile,
                 size_t s) {
  split_columns(x, stride, rows, cols, to.tile(tile, s));
  split_columns(x + kLanes, stride, rows, cols > kLanes ? cols - kLanes : 0, to.tile(tile + 1, s));
}

// The same of xᵀ.
void split_right_transposed(const float* x, size_t stride, size_t rows, size_t cols, const Factor& to,
                            size_t tile, size_t s) {
  split_left(x, stride, rows, cols, to, tile, s);
  transpose(to.tile(tile, s));
  transpose(to.tile(tile + 1, s));
}

void split_left_transposed(const float* x, size_t stride, size_t rows, size_t cols, const Factor& to,
                           size_t tile, size_t s) {
  split_right(x, stride, rows, cols, to, tile, s);
  transpose(to.tile(tile, s));
  transpose(to.tile(tile + 1, s));
}

// y [rows, cols] += a product of two factors.
void add_product(const Factor& a, size_t row_tile, const Factor& b, size_t col_tile, float* y, size_t stride,
                 size_t rows, size_t cols) {
  if (rows == kSide && cols == kSide)
    return multiply<Start::kAdd>(a.tile(row_tile, 0), b.tile(col_tile, 0), a.steps, y, stride);
  // Through a whole block. It starts from y, so that sums are taken in one order however many tokens there
  // are.
  Block block{};
  const auto each_vector = [&](auto use) {
    for (size_t r = 0; r < rows; ++r)
      for (size_t n = 0; n < cols; n += kLanes)
        use(y + r * stride + n, block.of[r] + n, first_lanes(cols - n));
  };
  each_vector([](const float* from, float* to, __mmask16 lanes) {
    _mm512_store_ps(to, _mm512_maskz_loadu_ps(lanes, from));
  });
  multiply<Start::kAdd>(a.tile(row_tile, 0), b.tile(col_tile, 0), a.steps, block.of[0], kSide);
  each_vector([](float* to, const float* from, __mmask16 lanes) {
    _mm512_mask_storeu_ps(to, lanes, _mm512_load_ps(from));
  });
}

// In: a and u before their rows' scales. Out: m = silu(a) ⊙ u, and into a and u the derivatives of m by a and
// by u: a <- u ⊙ σ(1 + a(1 - σ)), u <- s = a σ.
void forward_and_slopes(__m512 gate, __m512 up, float* m, float* by_gate, float* by_up) {
  const __m512 one = _mm512_set1_ps(1.0f);
  const __m512 minus = _mm512_xor_ps(gate, _mm512_set1_ps(-0.0f));
  const __m512 sigma = _mm512_div_ps(one, _mm512_add_ps(one, avx512vnni::exp(minus)));
  const __m512 s = _mm512_mul_ps(gate, sigma);
  const __m512 slope = _mm512_mul_ps(sigma, _mm512_fmadd_ps(gate, _mm512_sub_ps(one, sigma), one));
  _mm512_store_ps(m, _mm512_mul_ps(s, up));
  _mm512_store_ps(by_gate, _mm512_mul_ps(up, slope));
  _mm512_store_ps(by_up, s);
}

// (x - y)ᵀ for x, y [rows, cols] of 16 by 16 at most.
void transposed_difference(const float* x, size_t x_stride, const float* y, size_t y_stride, size_t rows,
                           size_t cols, float* to) {
  const __mmask16 lanes = first_lanes(cols);
  __m512i m[kLanes];
  for (size_t r = 0; r < kLanes; ++r) {
    const __mmask16 there = r < rows ? lanes : 0;
    m[r] = _mm512_castps_si512(_mm512_sub_ps(_mm512_maskz_loadu_ps(there, x + r * x_stride),
                                             _mm512_maskz_loadu_ps(there, y + r * y_stride)));
  }
  avx512vnni::transpose(m);
  for (size_t r = 0; r < kLanes; ++r) _mm512_store_si512(to + r * kSide, m[r]);
}

// Some tokens' keys, values and learning rates.
struct Batch {
  const float *k, *v, *eta;
  size_t k_stride, v_stride, eta_stride, tokens;
};

class Learning {
 public:
  Learning(const MemoryHead& head, size_t tokens, Scratch& scratch)
      : head_(head),
        D_(whole(head.dim)),
        h_(whole(head.hidden)),
        T_(whole(tokens)),
        keys_by_dim_(factor(scratch, T_, D_)),
        keys_by_token_(factor(scratch, D_, T_)),
        hidden_by_unit_(factor(scratch, T_, h_)),
        hidden_by_token_(factor(scratch, h_, T_)),
        errors_by_token_(factor(scratch, D_, T_)),
        errors_by_dim_(factor(scratch, T_, D_)),
        rows_by_dim_{factor(scratch, kSide, D_), factor(scratch, kSide, D_)},
        rows_by_unit_(factor(scratch, kSide, h_)),
        rows_by_token_{factor(scratch, kSide, T_), factor(scratch, kSide, T_)},
        slopes_gate_(scratch.floats(h_ * T_)),
        slopes_up_(scratch.floats(h_ * T_)),
        eta_(scratch.floats(T_)) {}

  void learn(const Batch& batch) {
    for (size_t t = 0; t < T_; ++t) eta_[t] = t < batch.tokens ? batch.eta[t * batch.eta_stride] : 0.0f;
    in_pieces(batch.tokens, [&](size_t t, size_t tokens) {
      in_pieces(head_.dim, [&](size_t d, size_t dims) {
        const float* k = batch.k + t * batch.k_stride + d;
        split_right_transposed(k, batch.k_stride, tokens, dims, keys_by_dim_, t / kLanes, d / kSide);
        split_right(k, batch.k_stride, tokens, dims, keys_by_token_, d / kLanes, t / kSide);
      });
    });
    in_pieces(head_.hidden, [&](size_t i, size_t units) { forward(i, units); });
    in_pieces(head_.dim, [&](size_t d, size_t dims) { compare(batch, d, dims); });
    in_pieces(head_.hidden, [&](size_t i, size_t units) { backward(i, units); });
  }

 private:
  // Whether row r is to be fetched along with the tokens from t on: each is once, and they are spread out.
  bool turn(size_t r, size_t t) const { return r % (T_ / kSide) == t / kSide; }

  // a = W_g Kᵀ, u = W_u Kᵀ and m for some hidden units.
  void forward(size_t i, size_t units) {
    in_pieces(head_.dim, [&](size_t d, size_t dims) {
      const size_t at = i * head_.dim + d;
      split_left(head_.w_gate + at, head_.dim, units, dims, rows_by_dim_[0], 0, d / kSide);
      split_left(head_.w_up + at, head_.dim, units, dims, rows_by_dim_[1], 0, d / kSide);
    });
    for (size_t t = 0; t < T_; t += kSide) {
      Block a, u, m;
      const Split* keys = keys_by_dim_.tile(t / kLanes, 0);
      multiply<Start::kZero>(rows_by_dim_[0].tiles, keys, D_ / kSide, a.of[0], kSide);
      multiply<Start::kZero>(rows_by_dim_[1].tiles, keys, D_ / kSide, u.of[0], kSide);
      for (size_t r = 0; r < units; ++r) {
        const __m512 r_gate = _mm512_set1_ps(head_.r_gate[i + r]), r_up = _mm512_set1_ps(head_.r_up[i + r]);
        if (turn(r, t)) {
          fetch(head_.w_gate + (i + kSide + r) * head_.dim, head_.dim);
          fetch(head_.w_up + (i + kSide + r) * head_.dim, head_.dim);
          fetch(head_.w_down + (i + r) * head_.dim, head_.dim);  // as many floats, read next
        }
        const size_t row = (i + r) * T_ + t;
        for (size_t c = 0; c < kSide; c += kLanes)
          forward_and_slopes(_mm512_mul_ps(_mm512_load_ps(a.of[r] + c), r_gate),
                             _mm512_mul_ps(_mm512_load_ps(u.of[r] + c), r_up), m.of[r] + c,
                             slopes_gate_ + row + c, slopes_up_ + row + c);
      }
      split_right(m.of[0], kSide, units, kSide, hidden_by_unit_, t / kLanes, i / kSide);
      split_right_transposed(m.of[0], kSide, units, kSide, hidden_by_token_, i / kLanes, t / kSide);
    }
  }

  // e = η (K + r_d ⊙ W_d m - V)ᵀ for some dimensions, and G_d += e mᵀ.
  void compare(const Batch& batch, size_t d, size_t dims) {
    in_pieces(head_.hidden, [&](size_t i, size_t units) {
      split_left(head_.w_down + d * head_.hidden + i, head_.hidden, dims, units, rows_by_unit_, 0, i / kSide);
    });
    for (size_t t = 0; t < T_; t += kSide) {
      Block y, e;
      multiply<Start::kZero>(rows_by_unit_.tiles, hidden_by_unit_.tile(t / kLanes, 0), h_ / kSide, y.of[0],
                             kSide);
      for (size_t c = 0; c < kSide; c += kLanes) {
        const size_t tokens = batch.tokens > t + c ? batch.tokens - t - c : 0;
        for (size_t r = 0; r < kSide; r += kLanes)
          transposed_difference(batch.k + (t + c) * batch.k_stride + d + r, batch.k_stride,
                                batch.v + (t + c) * batch.v_stride + d + r, batch.v_stride, tokens,
                                dims > r ? dims - r : 0, e.of[r] + c);
      }
      for (size_t r = 0; r < dims; ++r) {
        if (turn(r, t)) fetch(head_.g_down + (d + r) * head_.hidden, head_.hidden);
        const __m512 r_down = _mm512_set1_ps(head_.r_down[d + r]);
        for (size_t c = 0; c < kSide; c += kLanes) {
          const __m512 out =
              _mm512_fmadd_ps(r_down, _mm512_load_ps(y.of[r] + c), _mm512_load_ps(e.of[r] + c));
          const __m512 error = _mm512_mul_ps(_mm512_load_ps(eta_ + t + c), out);
          _mm512_store_ps(e.of[r] + c, error);
          _mm512_store_ps(y.of[r] + c, _mm512_mul_ps(r_down, error));
        }
      }
      split_left(e.of[0], kSide, dims, kSide, errors_by_token_, d / kLanes, t / kSide);
      split_right(y.of[0], kSide, dims, kSide, errors_by_dim_, t / kLanes, d / kSide);
    }
    in_pieces(head_.hidden, [&](size_t i, size_t units) {
      add_product(errors_by_token_, d / kLanes, hidden_by_token_, i / kLanes,
                  head_.g_down + d * head_.hidden + i, head_.hidden, dims, units);
    });
  }

  // G_g += (dm ⊙ ∂m/∂a) K and G_u += (dm ⊙ ∂m/∂u) K for some hidden units, with dm = W_dᵀ (r_d ⊙ e).
  void backward(size_t i, size_t units) {
    const Factor& weights = rows_by_dim_[0];
    in_pieces(head_.dim, [&](size_t d, size_t dims) {
      split_left_transposed(head_.w_down + d * head_.hidden + i, head_.hidden, dims, units, weights, 0,
                            d / kSide);
    });
    for (size_t t = 0; t < T_; t += kSide) {
      Block by_gate, by_up;
      multiply<Start::kZero>(weights.tiles, errors_by_dim_.tile(t / kLanes, 0), D_ / kSide, by_gate.of[0],
                             kSide);
      for (size_t r = 0; r < units; ++r) {
        if (turn(r, t)) {
          fetch(head_.g_gate + (i + r) * head_.dim, head_.dim);
          fetch(head_.g_up + (i + r) * head_.dim, head_.dim);
        }
        const size_t row = (i + r) * T_ + t;
        for (size_t c = 0; c < kSide; c += kLanes) {
          const __m512 dm = _mm512_load_ps(by_gate.of[r] + c);
          _mm512_store_ps(by_gate.of[r] + c, _mm512_mul_ps(dm, _mm512_load_ps(slopes_gate_ + row + c)));
          _mm512_store_ps(by_up.of[r] + c, _mm512_mul_ps(dm, _mm512_load_ps(slopes_up_ + row + c)));
        }
      }
      split_left(by_gate.of[0], kSide, units, kSide, rows_by_token_[0], 0, t / kSide);
      split_left(by_up.of[0], kSide, units, kSide, rows_by_token_[1], 0, t / kSide);
    }
    in_pieces(head_.dim, [&](size_t d, size_t dims) {
      const size_t at = i * head_.dim + d;
      add_product(rows_by_token_[0], 0, keys_by_token_, d / kLanes, head_.g_gate + at, head_.dim, units,
                  dims);
      add_product(rows_by_token_[1], 0, keys_by_token_, d / kLanes, head_.g_up + at, head_.dim, units, dims);
    });
  }

  const MemoryHead& head_;
  const size_t D_, h_, T_;  // whole
  // Factors, named for what is in them and what their products sum over. Right ones: Kᵀ, K, m, mᵀ, and
  // r_d ⊙ e; left ones: e, and of some rows those of W and of the gradients by a and u.
  const Factor keys_by_dim_, keys_by_token_, hidden_by_unit_, hidden_by_token_;
  const Factor errors_by_token_, errors_by_dim_;
  const Factor rows_by_dim_[2], rows_by_unit_, rows_by_token_[2];
  float *const slopes_gate_, *const slopes_up_;  // [h, T]  ∂m/∂a, ∂m/∂u
  float* const eta_;                             // [T]  0 for tokens that are not there
};

}  // namespace

size_t memory_scratch(size_t dim, size_t hidden) {
  MemoryHead head{};
  head.dim = dim;
  head.hidden = hidden;
  Scratch parts(nullptr);
  Learning learning(head, kTokensAtOnce, parts);
  const size_t others = avx512vnni::kernels().memory_scratch(dim, hidden);
  return (parts.used() > others ? parts.used() : others) + kLanes;
}

void memory_accumulate_fast(const MemoryHead& head, const float* k, size_t k_stride, const float* v,
                            size_t v_stride, const float* eta, size_t eta_stride, size_t n, float* scratch) {
  if (n < kFewTokens)
    return avx512vnni::memory_accumulate(head, k, k_stride, v, v_stride, eta, eta_stride, n, scratch);
  const Tiles tiles;
  for (size_t begin = 0; begin < n; begin += kTokensAtOnce) {
    const size_t tokens = smaller(kTokensAtOnce, n - begin);
    Scratch parts(aligned(scratch));
    Learning learning(head, tokens, parts);
    learning.learn({.k = k + begin * k_stride,
                    .v = v + begin * v_stride,
                    .eta = eta + begin * eta_stride,
                    .k_stride = k_stride,
                    .v_stride = v_stride,
                    .eta_stride = eta_stride,
                    .tokens = tokens});
  }
}

}  // namespace allmem::amx
