// Rotary position embedding, scalar.
#include "kernels/ref/ref.h"

namespace allmem::ref {

void rotate(const float* x, const float* cos, const float* sin, float* y, size_t T, size_t heads, size_t D) {
  const size_t half = D / 2;
  for (size_t t = 0; t < T; ++t, cos += half, sin += half) {
    for (size_t h = 0; h < heads; ++h, x += D, y += D) {
      for (size_t i = 0; i < half; ++i) {
        const float re = x[i], im = x[i + half];
        y[i] = re * cos[i] - im * sin[i];
        y[i + half] = im * cos[i] + re * sin[i];
      }
    }
  }
}

}  // namespace allmem::ref
