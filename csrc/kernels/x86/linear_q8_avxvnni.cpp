// Linear layers with 8-bit activations, AVX-VNNI: the dot products of AVX-512 VNNI in 32-byte registers, for
// processors that lack AVX-512 (Intel since Alder Lake).
#include "kernels/x86/avxvnni.h"
#include "kernels/x86/linear_affine_ymm.h"

namespace allmem::avxvnni {

namespace {

struct Dpbusd {
  template <unsigned kBits>
  static __m256i prepare(__m256i codes) {
    return codes;
  }
  template <unsigned kBits>
  static int start(int sum) {
    return sum;
  }
  template <unsigned kBits>
  static __m256i pair(__m256i w0, __m256i x0, __m256i w1, __m256i x1) {
    return _mm256_dpbusd_avx_epi32(_mm256_dpbusd_avx_epi32(_mm256_setzero_si256(), w0, x0), w1, x1);
  }

  template <unsigned kBits>
  [[gnu::always_inline]] static __m256i sums(const __m256i pairs[8]) {
    return avx2::sums_of(pairs);
  }
  [[gnu::always_inline]] static __m256i block_sums(const __m256i* pairs) { return avx2::half_sums(pairs); }
  // As in linear_q8_avx2.cpp.
  template <unsigned kBits, size_t M>
  [[gnu::always_inline]] static void products(const __m256i (*w)[2], const int8_t* x, size_t K,
                                              const int32_t* starts, size_t groups, __m256i (*to)[2]) {
#pragma GCC unroll 4
    for (size_t i = 0; i < M; ++i) to[i][0] = to[i][1] = _mm256_set1_epi32(starts[i * groups]);
#pragma GCC unroll 16
    for (size_t j = 0; j < avx2::kDwords; ++j) {
#pragma GCC unroll 4
      for (size_t i = 0; i < M; ++i) {
        const __m256i codes = avx2::four_codes(x + i * K + 4 * j);
        to[i][0] = _mm256_dpbusd_avx_epi32(to[i][0], w[j][0], codes);
        to[i][1] = _mm256_dpbusd_avx_epi32(to[i][1], w[j][1], codes);
      }
    }
  }

  template <size_t M>
  [[gnu::always_inline]] static void block_products(const __m256i (*w)[2], const int8_t* x, size_t K,
                                                    size_t part, __m256i (*to)[2]) {
#pragma GCC unroll 4
    for (size_t i = 0; i < M; ++i) to[i][0] = to[i][1] = _mm256_setzero_si256();
#pragma GCC unroll 8
    for (size_t k = 0; k < avx2::kDwords / avx2::kGroupBlocks; ++k) {
      const size_t j = avx2::dword_of_block(k, part);
#pragma GCC unroll 4
      for (size_t i = 0; i < M; ++i) {
        const __m256i codes = avx2::four_codes(x + i * K + 4 * j);
        to[i][0] = _mm256_dpbusd_avx_epi32(to[i][0], w[j][0], codes);
        to[i][1] = _mm256_dpbusd_avx_epi32(to[i][1], w[j][1], codes);
      }
    }
  }
};

}  // namespace

void linear_q8(const Q8Rows& x, const NBitsMatrix& w, const Init& init, float* y, size_t T, size_t n_begin,
               size_t n_end) {
  avx2::product<Dpbusd>(x, w, init, y, T, n_begin, n_end);
}

void linear_affine(const Q8Rows& x, const NBitsMatrix& w, const float* bias, float* y, size_t T,
                   size_t n_begin, size_t n_end) {
  avx2::affine_product<Dpbusd>(x, w, bias, y, T, n_begin, n_end);
}

}  // namespace allmem::avxvnni
