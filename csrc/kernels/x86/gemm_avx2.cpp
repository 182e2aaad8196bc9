// The two matrix products from which the AVX2 kernels are built.
//
// Zen 3 and Intel cores since Haswell start two 8-wide FMAs a cycle, each 4 to 5 cycles long: 8 to 10
// independent accumulators keep them busy, and a tile of tokens by rows shares each load between several
// FMAs.
//
// The unroll pragmas make GCC take the small arrays of accumulators apart early enough to keep them in
// registers; without them it stores each one in every iteration, at half the speed.
#include "kernels/x86/avx2.h"
#include "kernels/x86/avx2_math.h"

namespace allmem::avx2 {

namespace {

// `M` rows of x by 4 rows of w, of which `count` exist (the others repeat the last and are dropped).
template <size_t M>
void tile_nt(const float* x, size_t x_stride, const float* w, size_t w_stride, float* y, size_t y_stride,
             size_t count, size_t K) {
  const float* rows[4];
#pragma GCC unroll 8
  for (size_t j = 0; j < 4; ++j) rows[j] = w + smaller(j, count - 1) * w_stride;
  __m256 sums[M][4];
#pragma GCC unroll 8
  for (size_t i = 0; i < M; ++i)
#pragma GCC unroll 8
    for (size_t j = 0; j < 4; ++j) sums[i][j] = _mm256_setzero_ps();

  size_t k = 0;
  for (; k + kLanes <= K; k += kLanes) {
    __m256 xs[M];
#pragma GCC unroll 8
    for (size_t i = 0; i < M; ++i) xs[i] = _mm256_loadu_ps(x + i * x_stride + k);
#pragma GCC unroll 8
    for (size_t j = 0; j < 4; ++j) {
      const __m256 weights = _mm256_loadu_ps(rows[j] + k);
#pragma GCC unroll 8
      for (size_t i = 0; i < M; ++i) sums[i][j] = _mm256_fmadd_ps(xs[i], weights, sums[i][j]);
    }
  }
  if (k < K) {
    const __m256i rest = first_lanes(K - k);
#pragma GCC unroll 8
    for (size_t j = 0; j < 4; ++j) {
      const __m256 weights = _mm256_maskload_ps(rows[j] + k, rest);
#pragma GCC unroll 8
      for (size_t i = 0; i < M; ++i)
        sums[i][j] = _mm256_fmadd_ps(_mm256_maskload_ps(x + i * x_stride + k, rest), weights, sums[i][j]);
    }
  }
  const __m128i stored = _mm256_castsi256_si128(first_lanes(count));
#pragma GCC unroll 8
  for (size_t i = 0; i < M; ++i) {
    float* out = y + i * y_stride;
    const __m128 sum = horizontal_sums(sums[i][0], sums[i][1], sums[i][2], sums[i][3]);
    _mm_maskstore_ps(out, stored, _mm_add_ps(_mm_maskload_ps(out, stored), sum));
  }
}

// `M` rows of y by `V` whole vectors of columns.
template <size_t M, size_t V>
void tile_nn(const float* p, size_t p_row, size_t p_col, const float* v, size_t v_stride, float* y,
             size_t y_stride, size_t K) {
  __m256 sums[M][V];
#pragma GCC unroll 8
  for (size_t i = 0; i < M; ++i)
#pragma GCC unroll 8
    for (size_t j = 0; j < V; ++j) sums[i][j] = _mm256_loadu_ps(y + i * y_stride + j * kLanes);
  for (size_t k = 0; k < K; ++k, p += p_col, v += v_stride) {
    __m256 vs[V];
#pragma GCC unroll 8
    for (size_t j = 0; j < V; ++j) vs[j] = _mm256_loadu_ps(v + j * kLanes);
#pragma GCC unroll 8
    for (size_t i = 0; i < M; ++i) {
      const __m256 factor = _mm256_broadcast_ss(p + i * p_row);
#pragma GCC unroll 8
      for (size_t j = 0; j < V; ++j) sums[i][j] = _mm256_fmadd_ps(factor, vs[j], sums[i][j]);
    }
  }
#pragma GCC unroll 8
  for (size_t i = 0; i < M; ++i)
#pragma GCC unroll 8
    for (size_t j = 0; j < V; ++j) _mm256_storeu_ps(y + i * y_stride + j * kLanes, sums[i][j]);
}

// `M` rows of y by the first `lanes` columns of one vector.
template <size_t M>
void edge_nn(const float* p, size_t p_row, size_t p_col, const float* v, size_t v_stride, float* y,
             size_t y_stride, size_t K, size_t lanes) {
  const __m256i mask = first_lanes(lanes);
  __m256 sums[M];
#pragma GCC unroll 8
  for (size_t i = 0; i < M; ++i) sums[i] = _mm256_maskload_ps(y + i * y_stride, mask);
  for (size_t k = 0; k < K; ++k, p += p_col, v += v_stride) {
    const __m256 values = _mm256_maskload_ps(v, mask);
#pragma GCC unroll 8
    for (size_t i = 0; i < M; ++i)
      sums[i] = _mm256_fmadd_ps(_mm256_broadcast_ss(p + i * p_row), values, sums[i]);
  }
#pragma GCC unroll 8
  for (size_t i = 0; i < M; ++i) _mm256_maskstore_ps(y + i * y_stride, mask, sums[i]);
}

// `M` rows of y, `V` vectors of columns at a time.
template <size_t M, size_t V>
void rows_nn(const float* p, size_t p_row, size_t p_col, const float* v, size_t v_stride, float* y,
             size_t y_stride, size_t N, size_t K) {
  size_t n = 0;
  for (; n + V * kLanes <= N; n += V * kLanes)
    tile_nn<M, V>(p, p_row, p_col, v + n, v_stride, y + n, y_stride, K);
  for (; n + kLanes <= N; n += kLanes) tile_nn<M, 1>(p, p_row, p_col, v + n, v_stride, y + n, y_stride, K);
  if (n < N) edge_nn<M>(p, p_row, p_col, v + n, v_stride, y + n, y_stride, K, N - n);
}

}  // namespace

void gemm_nt(const float* x, size_t x_stride, const float* w, size_t w_stride, float* y, size_t y_stride,
             size_t M, size_t N, size_t K) {
  // Four rows of w stay in the first-level cache while all of x passes by; x should fit in the second.
  for (size_t n = 0; n < N; n += 4) {
    const size_t count = smaller(4, N - n);
    const float* rows = w + n * w_stride;
    size_t m = 0;
    for (; m + 3 <= M; m += 3)
      tile_nt<3>(x + m * x_stride, x_stride, rows, w_stride, y + m * y_stride + n, y_stride, count, K);
    if (M - m == 2)
      tile_nt<2>(x + m * x_stride, x_stride, rows, w_stride, y + m * y_stride + n, y_stride, count, K);
    if (M - m == 1)
      tile_nt<1>(x + m * x_stride, x_stride, rows, w_stride, y + m * y_stride + n, y_stride, count, K);
  }
}

void gemm_nn(const float* p, size_t p_row, size_t p_col, const float* v, size_t v_stride, float* y,
             size_t y_stride, size_t M, size_t N, size_t K) {
  size_t m = 0;
  for (; m + 4 <= M; m += 4)
    rows_nn<4, 2>(p + m * p_row, p_row, p_col, v, v_stride, y + m * y_stride, y_stride, N, K);
  p += m * p_row;
  y += m * y_stride;
  if (M - m == 3) rows_nn<3, 2>(p, p_row, p_col, v, v_stride, y, y_stride, N, K);
  if (M - m == 2) rows_nn<2, 4>(p, p_row, p_col, v, v_stride, y, y_stride, N, K);
  if (M - m == 1) rows_nn<1, 8>(p, p_row, p_col, v, v_stride, y, y_stride, N, K);
}

}  // namespace allmem::avx2
