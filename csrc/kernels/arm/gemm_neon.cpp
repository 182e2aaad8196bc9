// The two matrix products from which the NEON kernels are built.
//
// Large Arm cores start two to four 4-wide FMAs a cycle, each 4 cycles long: 12 to 16 of the 32 registers
// accumulate, and a tile of tokens by rows shares each load between several FMAs. The unroll pragmas let GCC
// keep the small arrays of accumulators in registers.
#include "kernels/arm/neon.h"
#include "kernels/arm/neon_math.h"

namespace allmem::neon {

namespace {

// `M` rows of x by 4 rows of w, of which `count` exist (the others repeat the last and are dropped).
template <size_t M>
void tile_nt(const float* x, size_t x_stride, const float* w, size_t w_stride, float* y, size_t y_stride,
             size_t count, size_t K) {
  const float* rows[4];
#pragma GCC unroll 8
  for (size_t j = 0; j < 4; ++j) rows[j] = w + smaller(j, count - 1) * w_stride;
  float32x4_t sums[M][4];
#pragma GCC unroll 8
  for (size_t i = 0; i < M; ++i)
#pragma GCC unroll 8
    for (size_t j = 0; j < 4; ++j) sums[i][j] = vdupq_n_f32(0);

  size_t k = 0;
  for (; k + kLanes <= K; k += kLanes) {
    float32x4_t xs[M];
#pragma GCC unroll 8
    for (size_t i = 0; i < M; ++i) xs[i] = vld1q_f32(x + i * x_stride + k);
#pragma GCC unroll 8
    for (size_t j = 0; j < 4; ++j) {
      const float32x4_t weights = vld1q_f32(rows[j] + k);
#pragma GCC unroll 8
      for (size_t i = 0; i < M; ++i) sums[i][j] = vfmaq_f32(sums[i][j], xs[i], weights);
    }
  }
  if (k < K) {
#pragma GCC unroll 8
    for (size_t j = 0; j < 4; ++j) {
      const float32x4_t weights = load_first(rows[j] + k, K - k);
#pragma GCC unroll 8
      for (size_t i = 0; i < M; ++i)
        sums[i][j] = vfmaq_f32(sums[i][j], load_first(x + i * x_stride + k, K - k), weights);
    }
  }
#pragma GCC unroll 8
  for (size_t i = 0; i < M; ++i) {
    float* out = y + i * y_stride;
    const float32x4_t sum = horizontal_sums(sums[i][0], sums[i][1], sums[i][2], sums[i][3]);
    store_first(out, count, vaddq_f32(load_first(out, count), sum));
  }
}

// `M` rows of y by `V` whole vectors of columns.
template <size_t M, size_t V>
void tile_nn(const float* p, size_t p_row, size_t p_col, const float* v, size_t v_stride, float* y,
             size_t y_stride, size_t K) {
  float32x4_t sums[M][V];
#pragma GCC unroll 8
  for (size_t i = 0; i < M; ++i)
#pragma GCC unroll 8
    for (size_t j = 0; j < V; ++j) sums[i][j] = vld1q_f32(y + i * y_stride + j * kLanes);
  for (size_t k = 0; k < K; ++k, p += p_col, v += v_stride) {
    float32x4_t vs[V];
#pragma GCC unroll 8
    for (size_t j = 0; j < V; ++j) vs[j] = vld1q_f32(v + j * kLanes);
#pragma GCC unroll 8
    for (size_t i = 0; i < M; ++i) {
      const float factor = p[i * p_row];
#pragma GCC unroll 8
      for (size_t j = 0; j < V; ++j) sums[i][j] = vfmaq_n_f32(sums[i][j], vs[j], factor);
    }
  }
#pragma GCC unroll 8
  for (size_t i = 0; i < M; ++i)
#pragma GCC unroll 8
    for (size_t j = 0; j < V; ++j) vst1q_f32(y + i * y_stride + j * kLanes, sums[i][j]);
}

// `M` rows of y by the first `lanes` columns of one vector.
template <size_t M>
void edge_nn(const float* p, size_t p_row, size_t p_col, const float* v, size_t v_stride, float* y,
             size_t y_stride, size_t K, size_t lanes) {
  float32x4_t sums[M];
#pragma GCC unroll 8
  for (size_t i = 0; i < M; ++i) sums[i] = load_first(y + i * y_stride, lanes);
  for (size_t k = 0; k < K; ++k, p += p_col, v += v_stride) {
    const float32x4_t values = load_first(v, lanes);
#pragma GCC unroll 8
    for (size_t i = 0; i < M; ++i) sums[i] = vfmaq_n_f32(sums[i], values, p[i * p_row]);
  }
#pragma GCC unroll 8
  for (size_t i = 0; i < M; ++i) store_first(y + i * y_stride, lanes, sums[i]);
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
    const auto tile = [&](auto multiply, size_t m) {
      multiply(x + m * x_stride, x_stride, rows, w_stride, y + m * y_stride + n, y_stride, count, K);
    };
    size_t m = 0;
    for (; m + 4 <= M; m += 4) tile(tile_nt<4>, m);
    if (M - m == 3) tile(tile_nt<3>, m);
    if (M - m == 2) tile(tile_nt<2>, m);
    if (M - m == 1) tile(tile_nt<1>, m);
  }
}

void gemm_nn(const float* p, size_t p_row, size_t p_col, const float* v, size_t v_stride, float* y,
             size_t y_stride, size_t M, size_t N, size_t K) {
  size_t m = 0;
  for (; m + 4 <= M; m += 4)
    rows_nn<4, 4>(p + m * p_row, p_row, p_col, v, v_stride, y + m * y_stride, y_stride, N, K);
  p += m * p_row;
  y += m * y_stride;
  if (M - m == 3) rows_nn<3, 4>(p, p_row, p_col, v, v_stride, y, y_stride, N, K);
  if (M - m == 2) rows_nn<2, 8>(p, p_row, p_col, v, v_stride, y, y_stride, N, K);
  if (M - m == 1) rows_nn<1, 8>(p, p_row, p_col, v, v_stride, y, y_stride, N, K);
}

}  // namespace allmem::neon
