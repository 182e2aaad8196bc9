// Floats kept in 8 bits.
#include "kernels/values_q8.h"

#include <algorithm>

#include "kernels/rows_q8.h"

namespace allmem {

namespace {

constexpr size_t kPiece = 16 * kQ8Group;  // quantised at a time: what is read twice stays in the cache

}  // namespace

size_t ValuesQ8::bytes(size_t n) {
  const size_t codes = whole_groups(n);
  return codes + codes / kQ8Group * sizeof(float);
}

ValuesQ8::ValuesQ8(std::byte* memory, size_t n)
    : n_(n),
      codes_(reinterpret_cast<int8_t*>(memory)),
      scales_(reinterpret_cast<float*>(memory + whole_groups(n))) {}

void ValuesQ8::load(const Kernels& kernels, const float* base, float* x) const {
  kernels.dequantise(codes_, scales_, base, x, n_);
}

void ValuesQ8::clear() { std::fill_n(reinterpret_cast<std::byte*>(codes_), bytes(n_), std::byte{0}); }

size_t ValuesQ8::scratch_floats() {
  Scratch parts(nullptr);
  parts.floats(kPiece);
  parts.floats(kPiece / kQ8Group);
  return parts.used();
}

void ValuesQ8::store(const Kernels& kernels, const float* x, const float* base, float* scratch) const {
  Scratch parts(scratch);
  float* piece = parts.floats(kPiece);
  auto* sums = reinterpret_cast<int32_t*>(parts.floats(kPiece / kQ8Group));
  for (size_t begin = 0; begin < n_; begin += kPiece) {
    const size_t count = std::min(kPiece, n_ - begin), whole = whole_groups(count);
    const float* from = x + begin;
    if (base != nullptr || whole != count) {
      for (size_t i = 0; i < count; ++i) piece[i] = from[i] - (base == nullptr ? 0.0f : base[begin + i]);
      std::fill(piece + count, piece + whole, 0.0f);
      from = piece;
    }
    kernels.quantise(from, 1, whole, 8, {codes_ + begin, scales_ + begin / kQ8Group, sums});
  }
}

}  // namespace allmem
