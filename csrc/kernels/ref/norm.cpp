// RMS normalisation, scalar.
#include <cmath>

#include "kernels/ref/ref.h"

namespace allmem::ref {

void rms_norm(const float* x, const float* weight, float* y, size_t rows, size_t cols, float epsilon) {
  for (size_t r = 0; r < rows; ++r, x += cols, y += cols) {
    double squares = 0;
    for (size_t c = 0; c < cols; ++c) squares += double{x[c]} * double{x[c]};
    const double scale = 1.0 / std::sqrt(squares / static_cast<double>(cols) + double{epsilon});
    for (size_t c = 0; c < cols; ++c) y[c] = static_cast<float>(double{x[c]} * scale) * weight[c];
  }
}

}  // namespace allmem::ref
