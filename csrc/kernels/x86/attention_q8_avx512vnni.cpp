// The steps of attention with 8-bit keys and values that gain from AVX-512.
#include <immintrin.h>

#include "kernels/x86/avx512vnni.h"

namespace allmem::avx512vnni {

void weighted_sum(const float* p, size_t p_stride, const float* v, size_t v_stride, float* y, size_t y_stride,
                  size_t M, size_t N, size_t K) {
  gemm_nn(p, p_stride, 1, v, v_stride, y, y_stride, M, N, K);
}

void dequantise(const uint8_t* codes, const float* scales, size_t stride, float* x, size_t n, size_t D) {
  const __m512i zero = _mm512_set1_epi32(128);
  for (size_t i = 0; i < n; ++i, codes += stride, scales += stride / kQ8Group, x += D) {
    _mm_prefetch(reinterpret_cast<const char*>(codes + 4096), _MM_HINT_T0);
    _mm_prefetch(reinterpret_cast<const char*>(codes + 4096 + 64), _MM_HINT_T0);
    for (size_t d = 0; d < D; d += 16) {  // the codes of a row fill whole groups
      const __m128i sixteen = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes + d));
      const __m512 values = _mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_cvtepu8_epi32(sixteen), zero));
      const size_t left = D - d;
      _mm512_mask_storeu_ps(x + d, static_cast<__mmask16>(left < 16 ? (1u << left) - 1 : 0xFFFF),
                            _mm512_mul_ps(values, _mm512_set1_ps(scales[d / kQ8Group])));
    }
  }
}

}  // namespace allmem::avx512vnni
