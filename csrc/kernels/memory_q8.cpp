// Reading the test-time memory from an 8-bit copy of its fast weights.
#include "kernels/memory_q8.h"

#include <algorithm>

#include "kernels/rows_q8.h"

namespace allmem {

namespace {

// Rows [rows, cols] of float32 as 8-bit weights; rows and columns that are not there are 0.
void copy_matrix(const Kernels& kernels, const float* from, size_t rows, size_t cols, const NBitsMatrix& to,
                 float* scratch) {
  Scratch parts(scratch);
  float* filled_up = parts.floats(to.cols);
  auto* sums = reinterpret_cast<int32_t*>(parts.floats(to.cols / kQ8Group));
  std::fill_n(filled_up, to.cols, 0.0f);
  auto* codes = const_cast<uint8_t*>(to.packed);
  auto* scales = const_cast<float*>(to.scales);
  for (size_t i = 0; i < to.rows; ++i, codes += to.cols, scales += to.cols / kQ8Group) {
    const float* row = from + i * cols;
    if (i >= rows) {
      std::fill_n(filled_up, to.cols, 0.0f);
      row = filled_up;
    } else if (cols < to.cols) {
      row = std::copy_n(row, cols, filled_up) - cols;
    }
    store_row(kernels, row, to.cols, codes, scales, sums);
  }
}

// The next matrix in `memory`.
NBitsMatrix next_matrix(std::byte*& memory, size_t rows, size_t cols) {
  const auto* codes = reinterpret_cast<const uint8_t*>(memory);
  const auto* scales = reinterpret_cast<const float*>(memory + rows * cols);
  memory += rows * cols + rows * cols / kQ8Group * sizeof(float);
  return {.packed = codes,
          .scales = scales,
          .zero_points = nullptr,
          .rows = rows,
          .cols = cols,
          .block = kQ8Group,
          .bits = 8};
}

}  // namespace

uint64_t MemoryQ8::bytes(size_t dim, size_t hidden) {
  const uint64_t weights = uint64_t{whole_groups(hidden)} * (2 * whole_groups(dim) + dim);
  return weights + weights / kQ8Group * sizeof(float);
}

MemoryQ8::MemoryQ8(size_t dim, size_t hidden, std::byte* memory)
    : dim_(dim),
      hidden_(hidden),
      gate_(next_matrix(memory, whole_groups(hidden), whole_groups(dim))),
      up_(next_matrix(memory, whole_groups(hidden), whole_groups(dim))),
      down_(next_matrix(memory, dim, whole_groups(hidden))) {}

void MemoryQ8::remake(const Kernels& kernels, const MemoryHead& head, float* scratch) const {
  copy_matrix(kernels, head.w_gate, hidden_, dim_, gate_, scratch);
  copy_matrix(kernels, head.w_up, hidden_, dim_, up_, scratch);
  copy_matrix(kernels, head.w_down, dim_, hidden_, down_, scratch);
}

void MemoryQ8::read(const Kernels& kernels, const float* q, float* y, size_t T, size_t group, size_t stride,
                    float* scratch) const {
  const size_t step = tokens_at_once(T, group), Dp = gate_.cols, hp = down_.cols;
  for (size_t begin = 0; begin < T; begin += step) {
    const size_t rows = std::min(step, T - begin) * group;
    Scratch parts(scratch);
    float* z = parts.floats(rows * Dp);
    float* a = parts.floats(rows * hp);
    float* u = parts.floats(rows * hp);
    const Q8Rows codes = parts.q8(rows, std::max(Dp, hp));
    const auto offset = [&](size_t row) { return (begin + row / group) * stride + row % group * dim_; };
    for (size_t row = 0; row < rows; ++row) {
      std::copy_n(q + offset(row), dim_, z + row * Dp);
      std::fill_n(z + row * Dp + dim_, Dp - dim_, 0.0f);
    }
    kernels.quantise(z, rows, Dp, 8, codes);
    kernels.linear_q8(codes, gate_, {}, a, rows, 0, hp);
    kernels.linear_q8(codes, up_, {}, u, rows, 0, hp);
    kernels.silu_mul(a, u, a, rows * hp);
    kernels.quantise(a, rows, hp, 8, codes);
    kernels.linear_q8(codes, down_, {}, z, rows, 0, dim_);  // D <= Dp
    for (size_t row = 0; row < rows; ++row)
      kernels.add(q + offset(row), z + row * dim_, y + offset(row), dim_);
  }
}

size_t MemoryQ8::scratch_floats(size_t dim, size_t hidden, size_t T, size_t group) {
  const size_t Dp = whole_groups(dim), hp = whole_groups(hidden), rows = tokens_at_once(T, group) * group;
  Scratch parts(nullptr);
  parts.floats(rows * (Dp + 2 * hp));
  parts.q8(rows, std::max(Dp, hp));
  return parts.used();
}

}  // namespace allmem
