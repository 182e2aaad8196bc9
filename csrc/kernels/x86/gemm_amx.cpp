// The two float32 matrix products of the AVX-512 kernels (gemm_avx512vnni.cpp), with AMX: a factor is the sum
// of two bfloat16, x = high + low up to 2^-18 of it, and a product is high high' + high low' + low high',
// exact to 2^-16. Sums are float32. A tile register holds 16 rows of 32 bfloat16.
#include "kernels/x86/amx.h"
#include "kernels/x86/amx_tiles.h"
#include "kernels/x86/avx512_math.h"

namespace allmem::amx {

namespace {

using namespace avx512vnni;  // NOLINT: the shared helpers, which have internal linkage

constexpr size_t kRows = kTileRegisterRows, kCols = 2 * kLanes;  // of a tile of bfloat16
constexpr size_t kSteps = 8;                                     // tiles along the sum at a time
constexpr size_t kTiles = 2 * kSteps;                            // of a factor at a time: 32 KiB

// 32 floats of a tile, which are 32 columns of a row, or 16 columns of two rows, in pairs.
struct Split {
  alignas(64) __m512i high[kRows], low[kRows];
};

__m512 widened(__m256i bfloats) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bfloats), 16));
}

// Into the rows' lower and upper halves.
void split(__m512 a, __m512 b, __m512i* high, __m512i* low) {
  *high = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(b, a));
  const __m512 a_high = widened(_mm512_castsi512_si256(*high)),
               b_high = widened(_mm512_extracti64x4_epi64(*high, 1));
  *low = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(_mm512_sub_ps(b, b_high), _mm512_sub_ps(a, a_high)));
}

// Rows of a left factor [rows, cols]; what is not there is 0.
void split_rows(const float* x, size_t stride, size_t rows, size_t cols, Split* to) {
  const __mmask16 first = first_lanes(cols), second = first_lanes(cols > kLanes ? cols - kLanes : 0);
  for (size_t r = 0; r < kRows; ++r) {
    const bool there = r < rows;
    split(_mm512_maskz_loadu_ps(there ? first : 0, x + r * stride),
          _mm512_maskz_loadu_ps(there ? second : 0, x + r * stride + kLanes), &to->high[r], &to->low[r]);
  }
}

// Rows of a right factor [rows, cols], two of them in pairs: dword n of row j = (x[2j, n], x[2j + 1, n]).
void split_pairs(const float* x, size_t stride, size_t rows, size_t cols, Split* to) {
  const __mmask16 lanes = first_lanes(cols);
  const __m512i pairs = _mm512_or_si512(
      _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
      _mm512_slli_epi32(_mm512_setr_epi32(16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31),
                        16));
  for (size_t j = 0; j < kRows; ++j) {
    __m512i high, low;
    split(_mm512_maskz_loadu_ps(2 * j < rows ? lanes : 0, x + 2 * j * stride),
          _mm512_maskz_loadu_ps(2 * j + 1 < rows ? lanes : 0, x + (2 * j + 1) * stride), &high, &low);
    to->high[j] = _mm512_permutexvar_epi16(pairs, high);
    to->low[j] = _mm512_permutexvar_epi16(pairs, low);
  }
}

// From rows to pairs of the transposed matrix, and back.
void transpose(Split* split) {
  avx512vnni::transpose(split->high);
  avx512vnni::transpose(split->low);
}

// c [32, 32] += a b; `steps` tiles of a factor lie one after the other.
void multiply(const Split* a0, const Split* a1, const Split* b0, const Split* b1, size_t steps, float* c,
              size_t c_stride) {
  const size_t stride = c_stride * sizeof(float);
  float* lower = c + kRows * c_stride;
  const auto add_products = [] {  // of the tiles in 4 and 5 with those in 6 and 7
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  };
  finish_stores(c);
  _tile_loadd(0, c, stride);
  _tile_loadd(1, c + kLanes, stride);
  _tile_loadd(2, lower, stride);
  _tile_loadd(3, lower + kLanes, stride);
  for (size_t s = 0; s < steps; ++s) {
    _tile_loadd(4, a0[s].high, kTileBytes);
    _tile_loadd(5, a1[s].high, kTileBytes);
    _tile_loadd(6, b0[s].low, kTileBytes);
    _tile_loadd(7, b1[s].low, kTileBytes);
    add_products();
    _tile_loadd(6, b0[s].high, kTileBytes);
    _tile_loadd(7, b1[s].high, kTileBytes);
    add_products();
    _tile_loadd(4, a0[s].low, kTileBytes);
    _tile_loadd(5, a1[s].low, kTileBytes);
    add_products();
  }
  _tile_stored(0, c, stride);
  _tile_stored(1, c + kLanes, stride);
  _tile_stored(2, lower, stride);
  _tile_stored(3, lower + kLanes, stride);
  finish_stores(c);
}

// 32 by 32 sums that do not lie in a matrix as they are.
struct Sums {
  alignas(64) float of[2 * kRows][2 * kLanes];
  void clear() { __builtin_memset(of, 0, sizeof of); }

  // y [rows, cols] += them
  void add_to(float* y, size_t stride, size_t rows, size_t cols) const {
    for (size_t r = 0; r < rows; ++r) {
      for (size_t n = 0; n < cols; n += kLanes) {
        const __mmask16 lanes = first_lanes(cols - n);
        float* at = y + r * stride + n;
        _mm512_mask_storeu_ps(at, lanes,
                              _mm512_add_ps(_mm512_maskz_loadu_ps(lanes, at), _mm512_load_ps(of[r] + n)));
      }
    }
  }
  void transpose() {
    for (size_t r = 0; r < 2; ++r) {
      for (size_t c = 0; c <= r; ++c) {
        __m512i a[kRows], b[kRows];
        for (size_t i = 0; i < kRows; ++i) {
          a[i] = _mm512_load_si512(of[r * kRows + i] + c * kLanes);
          b[i] = _mm512_load_si512(of[c * kRows + i] + r * kLanes);
        }
        avx512vnni::transpose(a);
        avx512vnni::transpose(b);
        for (size_t i = 0; i < kRows; ++i) {
          _mm512_store_si512(of[c * kRows + i] + r * kLanes, a[i]);
          _mm512_store_si512(of[r * kRows + i] + c * kLanes, b[i]);
        }
      }
    }
  }
};

// Calls use(k, depth, steps, m, rows) for pieces of a product's M rows and of the K columns that it sums
// over: `steps` tiles along the sum, and an even number of tiles of rows, so that all of them fit into
// kTiles.
template <class Use>
void in_pieces(size_t M, size_t K, Use use) {
  for (size_t k = 0; k < K; k += kSteps * kCols) {
    const size_t depth = smaller(kSteps * kCols, K - k), steps = (depth + kCols - 1) / kCols;
    const size_t piece = kTiles / steps / 2 * 2 * kRows;
    for (size_t m = 0; m < M; m += piece) use(k, depth, steps, m, smaller(piece, M - m));
  }
}

// Tiles of a factor with `size` rows or columns: make(i, k, tile) for the 16 from i on and the 32 from k on
// along the sum.
template <class Make>
void make_tiles(size_t size, size_t steps, Split* tiles, Make make) {
  for (size_t i = 0; i < size; i += kRows)
    for (size_t s = 0; s < steps; ++s) make(i, s * kCols, tiles + i / kRows * steps + s);
}

// The tiles that follow the first 16 of `size` rows or columns; where there are none, the first, whose
// product is then not used.
const Split* next_tiles(const Split* tiles, size_t size, size_t steps) {
  return size > kRows ? tiles + steps : tiles;
}

}  // namespace

void gemm_nn(const float* p, size_t p_row, size_t p_col, const float* v, size_t v_stride, float* y,
             size_t y_stride, size_t M, size_t N, size_t K) {
  const Tiles tiles;
  Split a[kTiles], b[kTiles];
  Sums sums;
  in_pieces(M, K, [&](size_t k, size_t depth, size_t steps, size_t m, size_t rows) {
    make_tiles(rows, steps, a, [&](size_t r, size_t d, Split* to) {
      const float* from = p + (m + r) * p_row + (k + d) * p_col;
      if (p_col == 1) {
        split_rows(from, p_row, rows - r, depth - d, to);
      } else {  // p_row is 1
        split_pairs(from, p_col, depth - d, rows - r, to);
        transpose(to);
      }
    });
    for (size_t n = 0; n < N; n += 2 * kLanes) {
      const size_t cols = smaller(2 * kLanes, N - n);
      make_tiles(cols, steps, b, [&](size_t c, size_t d, Split* to) {
        split_pairs(v + (k + d) * v_stride + n + c, v_stride, depth - d, cols - c, to);
      });
      const Split* b1 = next_tiles(b, cols, steps);
      for (size_t r = 0; r < rows; r += 2 * kRows) {
        const size_t count = smaller(2 * kRows, rows - r);
        const Split* a0 = a + r / kRows * steps;
        const Split* a1 = next_tiles(a0, count, steps);
        float* to = y + (m + r) * y_stride + n;
        if (count == 2 * kRows && cols == 2 * kLanes) {
          multiply(a0, a1, b, b1, steps, to, y_stride);
        } else {
          sums.clear();
          multiply(a0, a1, b, b1, steps, sums.of[0], 2 * kLanes);
          sums.add_to(to, y_stride, count, cols);
        }
      }
    }
  });
}

// The rows of w are the left factor, as they need not be transposed then; the result does.
void gemm_nt(const float* x, size_t x_stride, const float* w, size_t w_stride, float* y, size_t y_stride,
             size_t M, size_t N, size_t K) {
  const Tiles tiles;
  Split a[kTiles], b[kTiles];
  Sums sums;
  in_pieces(M, K, [&](size_t k, size_t depth, size_t steps, size_t m, size_t rows) {
    make_tiles(rows, steps, b, [&](size_t r, size_t d, Split* to) {
      split_rows(x + (m + r) * x_stride + k + d, x_stride, rows - r, depth - d, to);
      transpose(to);
    });
    for (size_t n = 0; n < N; n += 2 * kRows) {
      const size_t cols = smaller(2 * kRows, N - n);
      make_tiles(cols, steps, a, [&](size_t c, size_t d, Split* to) {
        split_rows(w + (n + c) * w_stride + k + d, w_stride, cols - c, depth - d, to);
      });
      const Split* a1 = next_tiles(a, cols, steps);
      for (size_t r = 0; r < rows; r += 2 * kRows) {
        const size_t count = smaller(2 * kRows, rows - r);
        const Split* b0 = b + r / kRows * steps;
        sums.clear();
        multiply(a, a1, b0, next_tiles(b0, count, steps), steps, sums.of[0], 2 * kLanes);
        sums.transpose();
        sums.add_to(y + (m + r) * y_stride + n, y_stride, count, cols);
      }
    }
  });
}

}  // namespace allmem::amx
