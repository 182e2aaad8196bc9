// SwiGLU with AVX-512, the elementwise function that takes longest.
#include "kernels/x86/avx512_math.h"
#include "kernels/x86/avx512vnni.h"

namespace allmem::avx512vnni {

void silu_mul(const float* gate, const float* up, float* y, size_t n) {
  const __m512 one = _mm512_set1_ps(1.0f), sign = _mm512_set1_ps(-0.0f);
  for (size_t i = 0; i < n; i += kLanes) {
    const __mmask16 there = first_lanes(n - i);
    const __m512 g = _mm512_maskz_loadu_ps(there, gate + i), u = _mm512_maskz_loadu_ps(there, up + i);
    const __m512 silu = _mm512_div_ps(g, _mm512_add_ps(one, exp(_mm512_xor_ps(g, sign))));
    _mm512_mask_storeu_ps(y + i, there, _mm512_mul_ps(silu, u));
  }
}

}  // namespace allmem::avx512vnni
