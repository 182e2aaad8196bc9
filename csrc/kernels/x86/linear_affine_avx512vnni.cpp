// 4-bit weights in blocks of 32 with zero points, and 8-bit activations, with AVX-512 VNNI: a block of
// tokens. Structure as in linear_q8_zmm.h; a group of 64 columns is two blocks.
#include "kernels/x86/avx2.h"
#include "kernels/x86/avx512vnni.h"
#include "kernels/x86/linear_q8_zmm.h"

namespace allmem::avx512vnni {

namespace {

constexpr size_t kGroupBlocks = kQ8Group / kAffineBlock;    // 2
constexpr size_t kTileBlocks = kTileGroups * kGroupBlocks;  // 16: a register of scales
// Below it AVX2's rows are faster: on a Zen 5 a model of rows of 576 and 1,536 columns decodes 1.2 times as
// fast with them as with the same in 64-byte registers.
constexpr size_t kFewAffine = 3;

__m512 halves(const uint16_t* from, __mmask16 there) {
  return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(there, from));
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
  if (T < kFewAffine) return avx2::linear_affine(x, w, bias, y, T, n_begin, n_end);
  by_tiles<AffineTile>(
      w, {.bias = bias}, y, n_begin, n_end,
      [&](size_t n, size_t rows, size_t group, size_t count, AffineTile& tile) {
        tile.unpack(w, n, rows, group, count);
      },
      [&](const AffineTile& tile, size_t group, size_t count, const Target& to) {
        by_tokens(T, [&]<size_t M>(size_t t) { multiply_affine<M>(tile, x, t, w.cols, group, count, to); });
      });
}

}  // namespace allmem::avx512vnni
