// The two float32 matrix products of the AVX2 kernels (gemm_avx2.cpp), with AVX-512: 8 rows by 32 columns of
// accumulators, 16 of the 32 registers.
#include "kernels/x86/avx2_math.h"
#include "kernels/x86/avx512_math.h"
#include "kernels/x86/avx512vnni.h"

namespace allmem::avx512vnni {

namespace {

constexpr size_t kRows = 8, kCols = 2 * kLanes;
constexpr size_t kDepth = 256;  // of a packed tile: 32 KiB

// y[m, 0..V*16) += Σ_k p[m, k] v[k, 0..V*16) for m < M; the last vector has only the lanes of `mask`.
template <size_t M, size_t V>
void tile(const float* p, size_t p_row, size_t p_col, const float* v, size_t v_stride, float* y,
          size_t y_stride, size_t K, __mmask16 mask) {
  const auto lanes = [&](size_t j) { return j + 1 == V ? mask : static_cast<__mmask16>(0xFFFF); };
  __m512 sums[M][V];
#pragma GCC unroll 8
  for (size_t i = 0; i < M; ++i)
#pragma GCC unroll 8
    for (size_t j = 0; j < V; ++j)
      sums[i][j] = _mm512_maskz_loadu_ps(lanes(j), y + i * y_stride + j * kLanes);
  for (size_t k = 0; k < K; ++k, p += p_col, v += v_stride) {
    __m512 vs[V];
#pragma GCC unroll 8
    for (size_t j = 0; j < V; ++j) vs[j] = _mm512_maskz_loadu_ps(lanes(j), v + j * kLanes);
#pragma GCC unroll 8
    for (size_t i = 0; i < M; ++i) {
      const __m512 factor = _mm512_set1_ps(p[i * p_row]);
#pragma GCC unroll 8
      for (size_t j = 0; j < V; ++j) sums[i][j] = _mm512_fmadd_ps(factor, vs[j], sums[i][j]);
    }
  }
#pragma GCC unroll 8
  for (size_t i = 0; i < M; ++i)
#pragma GCC unroll 8
    for (size_t j = 0; j < V; ++j) _mm512_mask_storeu_ps(y + i * y_stride + j * kLanes, lanes(j), sums[i][j]);
}

template <size_t M>
void rows(const float* p, size_t p_row, size_t p_col, const float* v, size_t v_stride, float* y,
          size_t y_stride, size_t N, size_t K) {
  constexpr size_t kWide = M >= 4 ? 2 : 8 / M;  // few rows: more columns, for as many accumulators
  size_t n = 0;
  for (; n + kWide * kLanes <= N; n += kWide * kLanes)
    tile<M, kWide>(p, p_row, p_col, v + n, v_stride, y + n, y_stride, K, 0xFFFF);
  for (; n < N; n += kLanes)
    tile<M, 1>(p, p_row, p_col, v + n, v_stride, y + n, y_stride, K, first_lanes(N - n));
}

// The rows [n, n + count) of w, count <= 32, as columns: packed[k * kCols + r].
void pack(const float* w, size_t w_stride, size_t count, size_t K, float* packed) {
  for (size_t r = 0; r < kCols; r += 8) {
    for (size_t k = 0; k < K; k += 8) {
      const __mmask8 there = static_cast<__mmask8>((1u << smaller(8, K - k)) - 1);
      __m256i m[8];
#pragma GCC unroll 8
      for (size_t i = 0; i < 8; ++i)
        m[i] = r + i < count ? _mm256_castps_si256(_mm256_maskz_loadu_ps(there, w + (r + i) * w_stride + k))
                             : _mm256_setzero_si256();
      avx2::transpose(m);
      for (size_t i = 0; i < smaller(8, K - k); ++i)
        _mm256_storeu_ps(packed + (k + i) * kCols + r, _mm256_castsi256_ps(m[i]));
    }
  }
}

// y[m, n] += Σ_k x[m, k] w[n, k], each as a dot product: for few rows of x, where packing w does not pay.
template <size_t M>
void dots(const float* x, size_t x_stride, const float* w, size_t w_stride, float* y, size_t y_stride,
          size_t N, size_t K) {
  constexpr size_t kW = 4;
  for (size_t n = 0; n < N; n += kW) {
    const size_t count = smaller(kW, N - n);
    __m512 sums[M][kW];
#pragma GCC unroll 8
    for (size_t i = 0; i < M; ++i)
#pragma GCC unroll 8
      for (size_t j = 0; j < kW; ++j) sums[i][j] = _mm512_setzero_ps();
    for (size_t k = 0; k < K; k += kLanes) {
      const __mmask16 there = first_lanes(K - k);
      __m512 xs[M];
#pragma GCC unroll 8
      for (size_t i = 0; i < M; ++i) xs[i] = _mm512_maskz_loadu_ps(there, x + i * x_stride + k);
#pragma GCC unroll 8
      for (size_t j = 0; j < kW; ++j) {
        const float* row = w + (n + smaller(j, count - 1)) * w_stride + k;
        _mm_prefetch(reinterpret_cast<const char*>(row + 2048), _MM_HINT_T0);
        const __m512 weights = _mm512_maskz_loadu_ps(there, row);
#pragma GCC unroll 8
        for (size_t i = 0; i < M; ++i) sums[i][j] = _mm512_fmadd_ps(xs[i], weights, sums[i][j]);
      }
    }
    for (size_t i = 0; i < M; ++i)
      for (size_t j = 0; j < count; ++j) y[i * y_stride + n + j] += _mm512_reduce_add_ps(sums[i][j]);
  }
}

// The same for any number of rows of x.
void all_dots(const float* x, size_t x_stride, const float* w, size_t w_stride, float* y, size_t y_stride,
              size_t M, size_t N, size_t K) {
  const auto go = [&]<size_t kM>() {
    dots<kM>(x, x_stride, w, w_stride, y, y_stride, N, K);
    x += kM * x_stride;
    y += kM * y_stride;
    M -= kM;
  };
  while (M >= 4) go.template operator()<4>();
  if (M >= 2) go.template operator()<2>();
  if (M >= 1) go.template operator()<1>();
}

}  // namespace

void gemm_nn(const float* p, size_t p_row, size_t p_col, const float* v, size_t v_stride, float* y,
             size_t y_stride, size_t M, size_t N, size_t K) {
  const auto go = [&]<size_t kM>() {
    rows<kM>(p, p_row, p_col, v, v_stride, y, y_stride, N, K);
    p += kM * p_row;
    y += kM * y_stride;
    M -= kM;
  };
  while (M >= kRows) go.template operator()<kRows>();
  if (M >= 4) go.template operator()<4>();
  if (M >= 2) go.template operator()<2>();
  if (M >= 1) go.template operator()<1>();
}

void gemm_nt(const float* x, size_t x_stride, const float* w, size_t w_stride, float* y, size_t y_stride,
             size_t M, size_t N, size_t K) {
  if (M < kRows) return all_dots(x, x_stride, w, w_stride, y, y_stride, M, N, K);
  alignas(64) float packed[kDepth * kCols];
  for (size_t n = 0; n < N; n += kCols) {
    const size_t count = smaller(kCols, N - n);
    for (size_t k = 0; k < K; k += kDepth) {
      const size_t depth = smaller(kDepth, K - k);
      pack(w + n * w_stride + k, w_stride, count, depth, packed);
      gemm_nn(x + k, x_stride, 1, packed, kCols, y + n, y_stride, M, count, depth);
    }
  }
}

void linear_f32(const float* x, const float* w, const float* bias, float* y, size_t T, size_t K, size_t N,
                size_t n_begin, size_t n_end) {
  for (size_t t = 0; t < T; ++t)
    for (size_t n = n_begin; n < n_end; ++n) y[t * N + n] = bias ? bias[n] : 0.0f;
  (N <= kOrderedRows ? all_dots : gemm_nt)(x, K, w + n_begin * K, K, y + n_begin, N, T, n_end - n_begin, K);
}

}  // namespace allmem::avx512vnni
