// 8-bit activations with AVX2: quantising them, and their products with 4- or 8-bit weights.
//
// vpmaddubsw multiplies unsigned by signed bytes and adds neighbours in 16 bits, saturating. 4-bit codes
// leave room for eight such sums (8 · 2 · 15 · 127 = 30,480). 8-bit codes leave none (2 · 255 · 127), so they
// are made signed and their sign moved to the activation: 2 · 128 · 127 = 32,512 fits.
#include "kernels/x86/avx2.h"
#include "kernels/x86/linear_affine_ymm.h"

namespace allmem::avx2 {

namespace {

struct Maddubs {
  template <unsigned kBits>
  static __m256i prepare(__m256i codes) {
    return _mm256_xor_si256(codes, _mm256_set1_epi8(-128));  // code - 128
  }
  // What a sum of products starts from: signed weights have no zero point left.
  template <unsigned kBits>
  static int start(int sum) {
    return kBits == 8 ? 0 : sum;
  }
  template <unsigned kBits>
  static __m256i products16(__m256i w, __m256i x) {
    if constexpr (kBits == 4) return _mm256_maddubs_epi16(w, x);
    return _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
  }
  static __m256i widened(__m256i sums16) { return _mm256_madd_epi16(sums16, _mm256_set1_epi16(1)); }

  // The products of a group of a row: in 4-bit mode 16 sums of 16 bits, which leave room for 4 of them.
  template <unsigned kBits>
  static __m256i pair(__m256i w0, __m256i x0, __m256i w1, __m256i x1) {
    const __m256i a = products16<kBits>(w0, x0), b = products16<kBits>(w1, x1);
    if constexpr (kBits == 4) return _mm256_add_epi16(a, b);
    return _mm256_add_epi32(widened(a), widened(b));
  }
  // Each half: the sums of that half's lanes of v[0], v[1], v[2] and v[3], which are pair<4>()s.
  [[gnu::always_inline]] static __m256i block_sums(const __m256i* v) {
    const __m256i a = _mm256_add_epi16(_mm256_unpacklo_epi64(v[0], v[1]), _mm256_unpackhi_epi64(v[0], v[1])),
                  b = _mm256_add_epi16(_mm256_unpacklo_epi64(v[2], v[3]), _mm256_unpackhi_epi64(v[2], v[3]));
    const __m256 c = _mm256_castsi256_ps(a), d = _mm256_castsi256_ps(b);
    return widened(_mm256_add_epi16(_mm256_castps_si256(_mm256_shuffle_ps(c, d, 0x88)),
                                    _mm256_castps_si256(_mm256_shuffle_ps(c, d, 0xDD))));
  }
  // Lane r = the sum of pairs[r]'s lanes.
  template <unsigned kBits>
  [[gnu::always_inline]] static __m256i sums(const __m256i pairs[8]) {
    if constexpr (kBits == 8) return sums_of(pairs);
    return sums_of_halves(block_sums(pairs), block_sums(pairs + 4));
  }

  // to[i][half] = the products of the rows of a tile's half with a group of token i, whose codes are i K
  // further on, and what takes the zero point out of them i groups.
  template <unsigned kBits, size_t M>
  [[gnu::always_inline]] static void products(const __m256i (*w)[2], const int8_t* x, size_t K,
                                              const int32_t* starts, size_t groups, __m256i (*to)[2]) {
#pragma GCC unroll 4
    for (size_t i = 0; i < M; ++i) to[i][0] = to[i][1] = _mm256_set1_epi32(start<kBits>(starts[i * groups]));
    constexpr size_t kTogether = kBits == 4 ? 8 : 1;  // products that 16 bits hold
#pragma GCC unroll 16
    for (size_t j = 0; j < kDwords; j += kTogether) {
      __m256i sums[M][2];
#pragma GCC unroll 8
      for (size_t k = j; k < j + kTogether; ++k) {
#pragma GCC unroll 4
        for (size_t i = 0; i < M; ++i) {
          const __m256i codes = four_codes(x + i * K + 4 * k);
#pragma GCC unroll 2
          for (size_t half = 0; half < 2; ++half) {
            const __m256i product = products16<kBits>(w[k][half], codes);
            sums[i][half] = k == j ? product : _mm256_add_epi16(sums[i][half], product);
            if (kTogether > 1) keep_order(sums[i][half]);
            if (k + 1 < j + kTogether) continue;
            to[i][half] = _mm256_add_epi32(to[i][half], widened(sums[i][half]));
            keep_order(to[i][half]);
          }
        }
      }
    }
  }

  // Of a tile's codes of a group, those of one block: eight products, which 16 bits hold.
  template <size_t M>
  [[gnu::always_inline]] static void block_products(const __m256i (*w)[2], const int8_t* x, size_t K,
                                                    size_t part, __m256i (*to)[2]) {
#pragma GCC unroll 8
    for (size_t k = 0; k < kDwords / kGroupBlocks; ++k) {
      const size_t j = dword_of_block(k, part);
#pragma GCC unroll 4
      for (size_t i = 0; i < M; ++i) {
        const __m256i codes = four_codes(x + i * K + 4 * j);
#pragma GCC unroll 2
        for (size_t half = 0; half < 2; ++half) {
          const __m256i product = products16<4>(w[j][half], codes);
          to[i][half] = k == 0 ? product : _mm256_add_epi16(to[i][half], product);
          keep_order(to[i][half]);
        }
      }
    }
#pragma GCC unroll 4
    for (size_t i = 0; i < M; ++i) {
      to[i][0] = widened(to[i][0]);
      to[i][1] = widened(to[i][1]);
    }
  }
};

}  // namespace

void quantise(const float* x, size_t T, size_t K, unsigned bits, const Q8Rows& q) {
  const __m256i no_sign = _mm256_set1_epi32(0x7FFFFFFF);
  const __m256i in_order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  for (size_t g = 0; g < T * (K / kQ8Group); ++g) {
    const float* group = x + g * kQ8Group;
    __m256i largest = _mm256_setzero_si256();
    for (size_t i = 0; i < kQ8Group; i += kLanes) {
      // As integers, the sizes of floats are in order, and those of NaNs come last.
      const __m256i v = _mm256_castps_si256(_mm256_loadu_ps(group + i));
      largest = _mm256_max_epi32(largest, _mm256_and_si256(v, no_sign));
    }
    __m128i half = _mm_max_epi32(_mm256_castsi256_si128(largest), _mm256_extracti128_si256(largest, 1));
    half = _mm_max_epi32(half, _mm_shuffle_epi32(half, 0x4E));
    half = _mm_max_epi32(half, _mm_shuffle_epi32(half, 0xB1));
    const float max = _mm_cvtss_f32(_mm_castsi128_ps(half));
    const bool finite = max < __builtin_inff();
    __m256i codes[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    if (finite && max > kQ8Tiny) {
      const __m256 inverse = _mm256_set1_ps(127.0f / max);
      const auto eight = [&](size_t i) {
        return _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(group + i * kLanes), inverse));
      };
      for (size_t i = 0; i < 2; ++i) {
        const __m256i a = _mm256_packs_epi32(eight(4 * i), eight(4 * i + 1));
        const __m256i b = _mm256_packs_epi32(eight(4 * i + 2), eight(4 * i + 3));
        codes[i] = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(a, b), in_order);
      }
    }
    const __m256i ones = _mm256_set1_epi8(1), ones16 = _mm256_set1_epi16(1);
    const __m256i pairs =
        _mm256_add_epi16(_mm256_maddubs_epi16(ones, codes[0]), _mm256_maddubs_epi16(ones, codes[1]));
    const __m256i fours = _mm256_madd_epi16(pairs, ones16);
    __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(fours), _mm256_extracti128_si256(fours, 1));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4E));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xB1));
    q.sums[g] = -_mm_cvtsi128_si32(sum) * (1 << (bits - 1));
    q.scales[g] = finite ? max / 127.0f : __builtin_nanf("");
    if (bits == 4) {
      const __m256i byte = _mm256_set1_epi16(0xFF);
      const __m256i evens =
          _mm256_packus_epi16(_mm256_and_si256(codes[0], byte), _mm256_and_si256(codes[1], byte));
      const __m256i odds =
          _mm256_packus_epi16(_mm256_srli_epi16(codes[0], 8), _mm256_srli_epi16(codes[1], 8));
      codes[0] = _mm256_permute4x64_epi64(evens, 0xD8);
      codes[1] = _mm256_permute4x64_epi64(odds, 0xD8);
    }
    for (size_t i = 0; i < 2; ++i)
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(q.codes + g * kQ8Group + 32 * i), codes[i]);
  }
}

void linear_q8(const Q8Rows& x, const NBitsMatrix& w, const Init& init, float* y, size_t T, size_t n_begin,
               size_t n_end) {
  product<Maddubs>(x, w, init, y, T, n_begin, n_end);
}

void linear_affine(const Q8Rows& x, const NBitsMatrix& w, const float* bias, float* y, size_t T,
                   size_t n_begin, size_t n_end) {
  affine_product<Maddubs>(x, w, bias, y, T, n_begin, n_end);
}

}  // namespace allmem::avx2
