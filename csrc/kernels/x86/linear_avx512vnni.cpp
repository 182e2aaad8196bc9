// 8-bit activations with AVX-512 VNNI: quantising them, and their products with 4- or 8-bit weights.
//
// A block of tokens: a group's 64 columns take 16 dot products of bytes for 16 rows and a token, and one
// conversion and scaling.
#include "kernels/x86/avx512vnni.h"
#include "kernels/x86/linear_q8_zmm.h"

namespace allmem::avx512vnni {

namespace {

constexpr float kInfinity = __builtin_inff();

// Bytes of each 128-bit lane: the even ones, then the odd ones. Then the even halves of all lanes, then the
// odd.
__m512i evens_then_odds(__m512i bytes) {
  const __m512i within =
      _mm512_broadcast_i32x4(_mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15));
  return _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7),
                                  _mm512_shuffle_epi8(bytes, within));
}

// The tile's product with the tokens [t, t + M).
template <size_t M>
void multiply_few(const Tile& tile, const Q8Rows& x, size_t t, size_t K, size_t group, size_t count,
                  const Target& to) {
  const size_t groups = K / kQ8Group;
  alignas(64) __m512 sums[M][2];
#pragma GCC unroll 8
  for (size_t i = 0; i < M; ++i)
    for (size_t half = 0; half < 2; ++half) sums[i][half] = to.start(t + i, half);
  for (size_t g = 0; g < count; ++g) {
    const int8_t* codes = x.codes + t * K + (group + g) * kQ8Group;
    const size_t scale = t * groups + group + g;
    __m512i products[M][2];
#pragma GCC unroll 8
    for (size_t i = 0; i < M; ++i)
      products[i][0] = products[i][1] = _mm512_set1_epi32(x.sums[scale + i * groups]);
#pragma GCC unroll 16
    for (size_t j = 0; j < kLanes; ++j) {
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
#pragma GCC unroll 8
    for (size_t i = 0; i < M; ++i) {
      const __m512 x_scale = _mm512_set1_ps(x.scales[scale + i * groups]);
#pragma GCC unroll 2
      for (size_t half = 0; half < 2; ++half) {
        const __m512 factor = _mm512_mul_ps(tile.scales[g][half], x_scale);
        sums[i][half] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products[i][half]), factor, sums[i][half]);
      }
    }
  }
#pragma GCC unroll 8
  for (size_t i = 0; i < M; ++i)
    for (size_t half = 0; half < 2; ++half) to.store(t + i, half, sums[i][half]);
}

struct Vnni {
  static constexpr bool kSigned = false;
  static void multiply(const Tile& tile, const Q8Rows& x, size_t T, size_t K, size_t group, size_t count,
                       const Target& to) {
    by_tokens(T, [&]<size_t M>(size_t t) { multiply_few<M>(tile, x, t, K, group, count, to); });
  }
};

}  // namespace

void quantise(const float* x, size_t T, size_t K, unsigned bits, const Q8Rows& q) {
  const __m512i no_sign = _mm512_set1_epi32(0x7FFFFFFF);
  for (size_t g = 0; g < T * (K / kQ8Group); ++g) {
    const float* group = x + g * kQ8Group;
    __m512 v[4];
    __m512i largest = _mm512_setzero_si512();
    for (size_t i = 0; i < 4; ++i) {
      v[i] = _mm512_loadu_ps(group + i * kLanes);
      // As integers, the sizes of floats are in order, and those of NaNs come last.
      largest = _mm512_max_epi32(largest, _mm512_and_si512(_mm512_castps_si512(v[i]), no_sign));
    }
    const float max = _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(_mm512_reduce_max_epi32(largest))));
    const bool finite = max < kInfinity;
    __m512i codes = _mm512_setzero_si512();
    if (finite && max > kQ8Tiny) {
      const __m512 inverse = _mm512_set1_ps(127.0f / max);
      const auto four = [&](size_t i) {
        return _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(v[i], inverse)));
      };
      codes = _mm512_castsi128_si512(four(0));
      codes = _mm512_inserti32x4(codes, four(1), 1);
      codes = _mm512_inserti32x4(codes, four(2), 2);
      codes = _mm512_inserti32x4(codes, four(3), 3);
    }
    const __m512i sums = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8(1), codes);
    q.sums[g] = -_mm512_reduce_add_epi32(sums) * (1 << (bits - 1));
    q.scales[g] = finite ? max / 127.0f : __builtin_nanf("");
    _mm512_storeu_si512(q.codes + g * kQ8Group, bits == 4 ? evens_then_odds(codes) : codes);
  }
}

void linear_q8(const Q8Rows& x, const NBitsMatrix& w, const Init& init, float* y, size_t T, size_t n_begin,
               size_t n_end) {
  if (T >= kFewTokens) return product_of_many<Vnni>(x, w, init, y, T, n_begin, n_end);
  (w.bits == 4 ? product_of_few<4> : product_of_few<8>)(x, w, init, y, T, n_begin, n_end);
}

}  // namespace allmem::avx512vnni
