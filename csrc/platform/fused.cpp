// The C library's.
#include "platform/fused.h"

#include <cmath>

namespace allmem {

float fused_multiply_add(float a, float b, float c) { return std::fma(a, b, c); }

double product_rest(double a, double b) { return std::fma(a, b, -(a * b)); }

}  // namespace allmem
