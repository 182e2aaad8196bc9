// Products that are not rounded: std::fma() where it keeps its promise.
#pragma once

namespace allmem {

// a b + c, rounded once.
float fused_multiply_add(float a, float b, float c);

// What rounding took from the product a b: a b - fl(a b), exactly, for products far from the ends of the
// range.
double product_rest(double a, double b);

}  // namespace allmem
