// Linear layers with 8-bit activations, AVX-VNNI: the dot products of AVX-512 VNNI in 32-byte registers, for
// processors that lack AVX-512 (Intel since Alder Lake).
#include "kernels/x86/avxvnni.h"
#include "kernels/x86/linear_q8_ymm.h"

namespace allmem::avxvnni {

namespace {

struct Dpbusd {
  static constexpr size_t kTokens = 4;  // of a tile: 8 sums stay in registers

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
  struct Products {
    __m256i sums;
    void start(int sum) { sums = _mm256_set1_epi32(sum); }
    [[gnu::always_inline]] void add(__m256i w, __m256i x, size_t) {
      sums = _mm256_dpbusd_avx_epi32(sums, w, x);
    }
    __m256i total() const { return sums; }
  };
};

}  // namespace

void linear_q8(const Q8Rows& x, const NBitsMatrix& w, const float* bias, float* y, size_t T, size_t n_begin,
               size_t n_end) {
  avx2::product<Dpbusd>(x, w, bias, y, T, n_begin, n_end);
}

}  // namespace allmem::avxvnni
