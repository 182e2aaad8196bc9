// The two matrix products from which the AVX2 kernels are built.
//
// Zen 3 and Intel cores since Haswell start two 8-wide FMAs a cycle, each 4 to 5 cycles long: 8 to 10
// independent accumulators keep them busy, and a tile of rows by columns shares each load between several
// FMAs. 6 rows by 16 columns take 12 accumulators, two vectors of columns and a factor: 15 of 16 registers.
//
// The unroll pragmas make GCC take the small arrays of accumulators apart early enough to keep them in
// registers; without them it stores each one in every iteration, at half the speed.
#include "kernels/simd/vector.h"
#include "kernels/x86/avx2.h"
#include "kernels/x86/avx2_math.h"

namespace allmem::avx2 {

namespace {

constexpr size_t kRows = 6, kCols = 2 * kLanes;
constexpr size_t kDepth = 128;  // of columns that are copied: 8 KiB

// y[m, n] += Σ_k p[m, k] v[k, n] for m < M and the columns of V vectors; a single one has only `lanes`.
template <size_t M, size_t V>
void tile(const float* p, size_t p_row, size_t p_col, const float* v, size_t v_stride, float* y,
          size_t y_stride, size_t K, size_t lanes) {
  const __m256i mask = first_lanes(lanes);
  const auto load = [&](const float* from) {
    return V == 1 ? _mm256_maskload_ps(from, mask) : _mm256_loadu_ps(from);
  };
  __m256 sums[M][V];
#pragma GCC unroll 8
  for (size_t i = 0; i < M; ++i)
#pragma GCC unroll 8
    for (size_t j = 0; j < V; ++j) sums[i][j] = load(y + i * y_stride + j * kLanes);
  for (size_t k = 0; k < K; ++k, p += p_col, v += v_stride) {
    __m256 vs[V];
#pragma GCC unroll 8
    for (size_t j = 0; j < V; ++j) vs[j] = load(v + j * kLanes);
#pragma GCC unroll 8
    for (size_t i = 0; i < M; ++i) {
      const __m256 factor = _mm256_broadcast_ss(p + i * p_row);
#pragma GCC unroll 8
      for (size_t j = 0; j < V; ++j) sums[i][j] = _mm256_fmadd_ps(factor, vs[j], sums[i][j]);
    }
  }
#pragma GCC unroll 8
  for (size_t i = 0; i < M; ++i) {
    float* to = y + i * y_stride;
    if (V == 1 && lanes < kLanes) {
      _mm256_maskstore_ps(to, mask, sums[i][0]);
      continue;
    }
#pragma GCC unroll 8
    for (size_t j = 0; j < V; ++j) _mm256_storeu_ps(to + j * kLanes, sums[i][j]);
  }
}

// The product for any number of rows and columns.
void product(const float* p, size_t p_row, size_t p_col, const float* v, size_t v_stride, float* y,
             size_t y_stride, size_t M, size_t N, size_t K) {
  const auto rows = [&]<size_t kM, size_t kV>() {
    size_t n = 0;
    for (; n + kV * kLanes <= N; n += kV * kLanes)
      tile<kM, kV>(p, p_row, p_col, v + n, v_stride, y + n, y_stride, K, kLanes);
    for (; n + kCols <= N; n += kCols)
      tile<kM, 2>(p, p_row, p_col, v + n, v_stride, y + n, y_stride, K, kLanes);
    for (; n < N; n += kLanes)
      tile<kM, 1>(p, p_row, p_col, v + n, v_stride, y + n, y_stride, K, smaller(kLanes, N - n));
    p += kM * p_row;
    y += kM * y_stride;
    M -= kM;
  };
  while (M >= kRows && M != 8) rows.template operator()<kRows, 2>();  // 8 are two times 4
  while (M >= 4) rows.template operator()<4, 2>();
  if (M >= 2) rows.template operator()<2, 4>();
  if (M >= 1) rows.template operator()<1, 8>();
}

// The product with columns that `copy` lays out one tile at a time: copy(n, count, k, depth, columns) for the
// columns [n, n + count) of rows [k, k + depth), kCols floats a row. In place they are a large power of two
// apart, so that few of them are in the first-level cache at a time.
template <typename Copy>
void product_of_copies(const float* p, size_t p_row, size_t p_col, float* y, size_t y_stride, size_t M,
                       size_t N, size_t K, Copy copy) {
  alignas(32) float columns[kDepth * kCols];
  for (size_t n = 0; n < N; n += kCols) {
    const size_t count = smaller(kCols, N - n);
    for (size_t k = 0; k < K; k += kDepth) {
      const size_t depth = smaller(kDepth, K - k);
      copy(n, count, k, depth, columns);
      product(p + k * p_col, p_row, p_col, columns, kCols, y + n, y_stride, M, count, depth);
    }
  }
}

// The first `depth` columns of `count` rows of w as rows.
void copy_transposed(const float* w, size_t w_stride, size_t count, size_t depth, float* columns) {
  for (size_t r = 0; r < count; r += kLanes) {
    for (size_t k = 0; k < depth; k += kLanes) {
      const __m256i there = first_lanes(smaller(kLanes, depth - k));
      __m256i m[kLanes];
#pragma GCC unroll 8
      for (size_t i = 0; i < kLanes; ++i) {
        const float* row = w + smaller(r + i, count - 1) * w_stride + k;
        m[i] = _mm256_castps_si256(_mm256_maskload_ps(row, there));
      }
      transpose(m);
      for (size_t i = 0; i < smaller(kLanes, depth - k); ++i)
        _mm256_store_ps(columns + (k + i) * kCols + r, _mm256_castsi256_ps(m[i]));
    }
  }
}

// y[m, n] += Σ_k x[m, k] w[n, k] for m < M and n < count <= 4, each as a dot product (the rows of w that are
// not there repeat the last and are dropped).
template <size_t M>
void dots(const float* x, size_t x_stride, const float* w, size_t w_stride, float* y, size_t y_stride,
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

}  // namespace

void gemm_nn(const float* p, size_t p_row, size_t p_col, const float* v, size_t v_stride, float* y,
             size_t y_stride, size_t M, size_t N, size_t K) {
  if (M < 2 * kRows) return product(p, p_row, p_col, v, v_stride, y, y_stride, M, N, K);
  const auto copy_rows = [&](size_t n, size_t count, size_t k, size_t depth, float* columns) {
    for (size_t i = 0; i < depth; ++i) simd::copy(v + (k + i) * v_stride + n, columns + i * kCols, count);
  };
  product_of_copies(p, p_row, p_col, y, y_stride, M, N, K, copy_rows);
}

void gemm_nt(const float* x, size_t x_stride, const float* w, size_t w_stride, float* y, size_t y_stride,
             size_t M, size_t N, size_t K) {
  if (M < kRows) return gemm_nt_dots(x, x_stride, w, w_stride, y, y_stride, M, N, K);
  const auto copy_rows = [&](size_t n, size_t count, size_t k, size_t depth, float* columns) {
    copy_transposed(w + n * w_stride + k, w_stride, count, depth, columns);
  };
  product_of_copies(x, x_stride, 1, y, y_stride, M, N, K, copy_rows);
}

void gemm_nt_dots(const float* x, size_t x_stride, const float* w, size_t w_stride, float* y, size_t y_stride,
                  size_t M, size_t N, size_t K) {
  // Four rows of w stay in the first-level cache while all of x passes by.
  for (size_t n = 0; n < N; n += 4) {
    const size_t count = smaller(4, N - n);
    const float* rows = w + n * w_stride;
    size_t m = 0;
    for (; m + 3 <= M; m += 3)
      dots<3>(x + m * x_stride, x_stride, rows, w_stride, y + m * y_stride + n, y_stride, count, K);
    if (M - m == 2)
      dots<2>(x + m * x_stride, x_stride, rows, w_stride, y + m * y_stride + n, y_stride, count, K);
    if (M - m == 1)
      dots<1>(x + m * x_stride, x_stride, rows, w_stride, y + m * y_stride + n, y_stride, count, K);
  }
}

}  // namespace allmem::avx2
