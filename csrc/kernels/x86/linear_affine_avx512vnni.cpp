// 4-bit weights in blocks of 32 with zero points, and 8-bit activations, with AVX-512 VNNI. Structure as in
// linear_q8_zmm.h; a group of 64 columns is two blocks. Of a row's packed group of 32 bytes the first half is
// the first block, and so it is of the even and of the odd columns' activations: in a register of 64 bytes a
// quarter is a block.
#include "kernels/x86/avx512vnni.h"
#include "kernels/x86/linear_q8_zmm.h"

namespace allmem::avx512vnni {

namespace {

constexpr size_t kGroupBlocks = kQ8Group / kAffineBlock;    // 2
constexpr size_t kTileBlocks = kTileGroups * kGroupBlocks;  // 16: a register of scales
constexpr size_t kTokens = 6;                               // of a tile: 12 products stay in registers

__m512 halves(const uint16_t* from, __mmask16 there) {
  return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(there, from));
}

// The scales of `count` groups <= 8, twice each: those of their blocks.
__m512 scales_of_blocks(const float* scales, size_t count) {
  const __m512i twice = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
  return _mm512_permutexvar_ps(twice, _mm512_maskz_loadu_ps(first_lanes(count), scales));
}

// to[b % 4][b / 4 * 4 + r] = rows[r] lane b.
void store_by_block(const __m512 rows[4], float (*to)[kLanes]) {
  const __m512d even = _mm512_castps_pd(_mm512_unpacklo_ps(rows[0], rows[1])),
                odd = _mm512_castps_pd(_mm512_unpackhi_ps(rows[0], rows[1])),
                even2 = _mm512_castps_pd(_mm512_unpacklo_ps(rows[2], rows[3])),
                odd2 = _mm512_castps_pd(_mm512_unpackhi_ps(rows[2], rows[3]));
  _mm512_store_ps(to[0], _mm512_castpd_ps(_mm512_unpacklo_pd(even, even2)));
  _mm512_store_ps(to[1], _mm512_castpd_ps(_mm512_unpackhi_pd(even, even2)));
  _mm512_store_ps(to[2], _mm512_castpd_ps(_mm512_unpacklo_pd(odd, odd2)));
  _mm512_store_ps(to[3], _mm512_castpd_ps(_mm512_unpackhi_pd(odd, odd2)));
}

// Lane 4b + r: the products of row r with block b of the kGroups groups, 1 or 2, at hand.
template <size_t kGroups>
[[gnu::always_inline]] inline __m512i products_of_blocks(const uint8_t* const rows[4], const int8_t* codes) {
  const __m512i x = _mm512_loadu_si512(codes);
  const __m512i next = kGroups == 2 ? _mm512_loadu_si512(codes + kQ8Group) : x;
  const __m512i evens = _mm512_shuffle_i64x2(x, next, 0x44), odds = _mm512_shuffle_i64x2(x, next, 0xEE);
  const __m512i low = _mm512_set1_epi8(0x0F);
  __m512i products[4];
#pragma GCC unroll 4
  for (size_t r = 0; r < 4; ++r) {
    fetch(rows[r] + kAhead);
    const __m512i w =
        kGroups == 2 ? _mm512_loadu_si512(rows[r])
                     : _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(rows[r])));
    const __m512i lows = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_and_si512(w, low), evens);
    products[r] = _mm512_dpbusd_epi32(lows, _mm512_and_si512(_mm512_srli_epi16(w, 4), low), odds);
  }
  return quarter_sums_of_small(products);
}

// y[n + r step] for one token, r < rows <= 4, two groups at a time.
void affine_rows(const Q8Rows& x, const NBitsMatrix& w, const float* bias, float* y, size_t n, size_t step,
                 size_t rows) {
  constexpr size_t kRows = kStreams;
  const size_t blocks = w.cols / kAffineBlock;
  const auto row = [&](size_t r) { return n + smaller(r, rows - 1) * step; };
  const uint8_t* packed[kRows];
  alignas(16) float totals[kRows];  // a lane for each row
#pragma GCC unroll 4
  for (size_t r = 0; r < kRows; ++r) {
    packed[r] = w.packed + row(r) * (w.cols / 2);
    totals[r] = bias == nullptr ? 0.0f : bias[row(r)];
  }
  __m128 sums = _mm_load_ps(totals);
  alignas(64) float factors[4][kLanes], zeros[4][kLanes];  // [b % 4][b / 4 * 4 + row] of 16 blocks
  for (size_t begin = 0; begin < blocks; begin += kTileBlocks) {
    const size_t count = smaller(kTileBlocks, blocks - begin);
    const __mmask16 there = first_lanes(count);
    const __m512 x_scales = scales_of_blocks(x.scales + begin / kGroupBlocks, count / kGroupBlocks);
    const __m512 x_sums = _mm512_cvtepi32_ps(_mm512_maskz_loadu_epi32(there, x.sums + begin));
    __m512 f[kRows], z[kRows];
#pragma GCC unroll 4
    for (size_t r = 0; r < kRows; ++r) {
      const size_t at = row(r) * blocks + begin;
      f[r] = _mm512_mul_ps(halves(w.half_scales + at, there), x_scales);
      z[r] = _mm512_mul_ps(halves(w.half_zeros + at, there), x_sums);
    }
    store_by_block(f, factors);
    store_by_block(z, zeros);
    const auto add = [&]<size_t kGroups>(size_t b) __attribute__((always_inline)) {
      const uint8_t* at[kRows];
#pragma GCC unroll 4
      for (size_t r = 0; r < kRows; ++r) at[r] = packed[r] + (begin + b) * (kAffineBlock / 2);
      const __m512 products =
          _mm512_cvtepi32_ps(products_of_blocks<kGroups>(at, x.codes + (begin + b) * kAffineBlock));
      const auto block = [&](size_t i, __m128 product) __attribute__((always_inline)) {
        sums =
            _mm_fmadd_ps(_mm_sub_ps(product, _mm_load_ps(zeros[i] + b)), _mm_load_ps(factors[i] + b), sums);
      };
      block(0, _mm512_castps512_ps128(products));
      block(1, _mm512_extractf32x4_ps(products, 1));
      if constexpr (kGroups == 2) {
        block(2, _mm512_extractf32x4_ps(products, 2));
        block(3, _mm512_extractf32x4_ps(products, 3));
      }
    };
    size_t b = 0;
    for (; b + 4 <= count; b += 4) add.template operator()<2>(b);
    if (b < count) add.template operator()<1>(b);
  }
  _mm_store_ps(totals, sums);
  for (size_t r = 0; r < rows; ++r) y[row(r)] = totals[r];
}

void affine_of_few(const Q8Rows& x, const NBitsMatrix& w, const float* bias, float* y, size_t T,
                   size_t n_begin, size_t n_end) {
  const auto rows = [&](size_t n, size_t step, size_t count) {
    for (size_t t = 0; t < T; ++t) {
      const Q8Rows from{x.codes + t * w.cols, x.scales + t * (w.cols / kQ8Group),
                        x.sums + t * (w.cols / kAffineBlock)};
      affine_rows(from, w, bias, y + t * w.rows, n, step, count);
    }
  };
  const size_t step = stream_rows((n_end - n_begin) / kStreams, w.cols / 2);
  for (size_t n = n_begin; n < n_begin + step; ++n) rows(n, step, kStreams);
  for (size_t n = n_begin + kStreams * step; n < n_end; n += kStreams)
    rows(n, 1, smaller(kStreams, n_end - n));
}

// 32 rows of up to 8 groups; what Tile is to linear_q8, with a scale and a zero point for each block.
struct AffineTile {
  alignas(64) __m512i codes[kTileGroups][kLanes][2];
  alignas(64) __m512 scales[kTileBlocks][2], zeros[kTileBlocks][2];

  void unpack(const NBitsMatrix& w, size_t n, size_t rows, size_t group, size_t count) {
    unpack_codes<4, false>(w, n, rows, group, count, codes);
    unpack_halves(w, w.half_scales, n, rows, group, count, scales);
    unpack_halves(w, w.half_zeros, n, rows, group, count, zeros);
  }

 private:
  static void unpack_halves(const NBitsMatrix& w, const uint16_t* from, size_t n, size_t rows, size_t group,
                            size_t count, __m512 (*to)[2]) {
    const size_t blocks = w.cols / kAffineBlock;
    __m512i m[kLanes];
    for (size_t half = 0; half < 2; ++half) {
#pragma GCC unroll 16
      for (size_t r = 0; r < kLanes; ++r) {
        const size_t row = n + smaller(half * kLanes + r, rows - 1);
        m[r] = _mm512_castps_si512(
            halves(from + row * blocks + group * kGroupBlocks, first_lanes(count * kGroupBlocks)));
      }
      transpose(m);
      for (size_t b = 0; b < count * kGroupBlocks; ++b) to[b][half] = _mm512_castsi512_ps(m[b]);
    }
  }
};

// The tile's product with the tokens [t, t + M).
template <size_t M>
void multiply_affine(const AffineTile& tile, const Q8Rows& x, size_t t, size_t K, size_t group, size_t count,
                     const Target& to) {
  const size_t groups = K / kQ8Group;
  alignas(64) __m512 sums[M][2];
#pragma GCC unroll 8
  for (size_t i = 0; i < M; ++i)
    for (size_t half = 0; half < 2; ++half) sums[i][half] = to.start(t + i, half);
  for (size_t g = 0; g < count; ++g) {
    const size_t at = t * groups + group + g;
    const int8_t* codes = x.codes + t * K + (group + g) * kQ8Group;
#pragma GCC unroll 2
    for (size_t part = 0; part < kGroupBlocks; ++part) {
      __m512i products[M][2];
#pragma GCC unroll 8
      for (size_t i = 0; i < M; ++i) products[i][0] = products[i][1] = _mm512_setzero_si512();
#pragma GCC unroll 8
      for (size_t k = 0; k < kLanes / kGroupBlocks; ++k) {
        const size_t j = k % 4 + part * 4 + k / 4 * 8;  // four of the even columns, then four of the odd
        const __m512i low = tile.codes[g][j][0], high = tile.codes[g][j][1];
#pragma GCC unroll 8
        for (size_t i = 0; i < M; ++i) {
          int four;
          __builtin_memcpy(&four, codes + i * K + 4 * j, sizeof(four));
          const __m512i xs = _mm512_set1_epi32(four);
          products[i][0] = _mm512_dpbusd_epi32(products[i][0], low, xs);
          products[i][1] = _mm512_dpbusd_epi32(products[i][1], high, xs);
        }
      }
      const size_t b = g * kGroupBlocks + part;
#pragma GCC unroll 8
      for (size_t i = 0; i < M; ++i) {
        const __m512 x_scale = _mm512_set1_ps(x.scales[at + i * groups]);
        const __m512 x_sum =
            _mm512_set1_ps(static_cast<float>(x.sums[(at + i * groups) * kGroupBlocks + part]));
#pragma GCC unroll 2
        for (size_t half = 0; half < 2; ++half) {
          const __m512 product =
              _mm512_fnmadd_ps(tile.zeros[b][half], x_sum, _mm512_cvtepi32_ps(products[i][half]));
          const __m512 factor = _mm512_mul_ps(tile.scales[b][half], x_scale);
          sums[i][half] = _mm512_fmadd_ps(product, factor, sums[i][half]);
        }
      }
    }
  }
#pragma GCC unroll 8
  for (size_t i = 0; i < M; ++i)
    for (size_t half = 0; half < 2; ++half) to.store(t + i, half, sums[i][half]);
}

}  // namespace

void linear_affine(const Q8Rows& x, const NBitsMatrix& w, const float* bias, float* y, size_t T,
                   size_t n_begin, size_t n_end) {
  if (T < kFewTokens) return affine_of_few(x, w, bias, y, T, n_begin, n_end);
  const size_t groups = w.cols / kQ8Group;
  AffineTile tile;
  for (size_t n = n_begin; n < n_end; n += kTileRows) {
    const size_t rows = smaller(kTileRows, n_end - n);
    Target to{y + n, w.rows,  {first_lanes(rows), first_lanes(rows < kLanes ? 0 : rows - kLanes)},
              {},    nullptr, true};
    for (size_t half = 0; half < 2; ++half)
      to.bias[half] =
          bias ? _mm512_maskz_loadu_ps(to.rows[half], bias + n + half * kLanes) : _mm512_setzero_ps();
    for (size_t g = 0; g < groups; g += kTileGroups) {
      const size_t count = smaller(kTileGroups, groups - g);
      tile.unpack(w, n, rows, g, count);
      to.first = g == 0;
      size_t t = 0;
      const auto tokens = [&]<size_t M>() {
        multiply_affine<M>(tile, x, t, w.cols, g, count, to);
        t += M;
      };
      while (t + kTokens <= T) tokens.template operator()<kTokens>();
      if (T - t >= 4) tokens.template operator()<4>();
      if (T - t >= 2) tokens.template operator()<2>();
      if (T - t >= 1) tokens.template operator()<1>();
    }
  }
}

}  // namespace allmem::avx512vnni
