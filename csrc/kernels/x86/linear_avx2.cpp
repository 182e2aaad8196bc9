// Linear layers with AVX2: float32 weights, and 4- or 8-bit weights unpacked on the fly.
//
// One token is bound by memory: each byte of the weights is read once, in order. A block of tokens is bound
// by arithmetic: a tile of weights is unpacked once into the first-level cache and used for every token.
#include "kernels/x86/avx2.h"
#include "kernels/x86/avx2_math.h"

namespace allmem::avx2 {

namespace {

void fill_with_bias(const float* bias, float* y, size_t T, size_t N, size_t n_begin, size_t n_end) {
  for (size_t t = 0; t < T; ++t)
    for (size_t n = n_begin; n < n_end; ++n) y[t * N + n] = bias ? bias[n] : 0.0f;
}

// --- Unpacking a tile
// --------------------------------------------------------------------------------------------

constexpr size_t kTileRows = 16, kTileCols = 256;  // 16 KiB of floats: half of the first-level cache

// 16 codes, in order, one a byte.
__m128i sixteen_codes(const uint8_t* packed, unsigned bits) {
  if (bits == 8) return _mm_loadu_si128(reinterpret_cast<const __m128i*>(packed));
  const __m128i pairs = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(packed));
  const __m128i nibble = _mm_set1_epi8(0xF);
  const __m128i even = _mm_and_si128(pairs, nibble), odd = _mm_and_si128(_mm_srli_epi16(pairs, 4), nibble);
  return _mm_unpacklo_epi8(even, odd);
}

float zero_point(const NBitsMatrix& w, size_t n, size_t b) {
  if (w.half_zeros != nullptr) return _cvtsh_ss(w.half_zeros[n * (w.cols / w.block) + b]);
  if (w.zero_points == nullptr) return static_cast<float>(1u << (w.bits - 1));
  const size_t row_bytes = (w.cols / w.block * w.bits + 7) / 8;
  const uint8_t* row = w.zero_points + n * row_bytes;
  return static_cast<float>(w.bits == 8 ? row[b] : (row[b / 2] >> (b % 2 * 4)) & 0xF);
}

// The scales [first, first + count) in float32: where they are, or in `room`.
const float* float_scales(const NBitsMatrix& w, size_t first, size_t count, float* room) {
  if (w.half_scales == nullptr) return w.scales + first;
  for (size_t i = 0; i < count; ++i) room[i] = _cvtsh_ss(w.half_scales[first + i]);
  return room;
}

constexpr size_t kLeastBlock = 16;

// out[k - k_begin] = (code - zero) * scale for the columns k_begin <= k < k_end of row n, whole blocks.
void unpack_row(const NBitsMatrix& w, size_t n, size_t k_begin, size_t k_end, float* out) {
  const uint8_t* row = w.packed + n * (w.cols * w.bits / 8);
  float room[kTileCols / kLeastBlock];
  const float* scales = float_scales(w, (n * w.cols + k_begin) / w.block, (k_end - k_begin) / w.block, room);
  for (size_t block = k_begin; block < k_end; block += w.block) {
    const __m256 scale = _mm256_broadcast_ss(scales + (block - k_begin) / w.block);
    const __m256 zero = _mm256_set1_ps(zero_point(w, n, block / w.block));
    for (size_t k = block; k < block + w.block; k += 16, out += 16) {
      const __m128i codes = sixteen_codes(row + k * w.bits / 8, w.bits);
      const __m256 low = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(codes));
      const __m256 high = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128(codes, 8)));
      _mm256_storeu_ps(out, _mm256_mul_ps(_mm256_sub_ps(low, zero), scale));
      _mm256_storeu_ps(out + kLanes, _mm256_mul_ps(_mm256_sub_ps(high, zero), scale));
    }
  }
}

void add_product_of_block(const float* x, const NBitsMatrix& w, float* y, size_t T, size_t n_begin,
                          size_t n_end) {
  alignas(32) float tile[kTileRows * kTileCols];
  for (size_t n = n_begin; n < n_end; n += kTileRows) {
    const size_t rows = smaller(kTileRows, n_end - n);
    for (size_t k = 0; k < w.cols; k += kTileCols) {
      const size_t cols = smaller(kTileCols, w.cols - k);
      for (size_t r = 0; r < rows; ++r) unpack_row(w, n + r, k, k + cols, tile + r * kTileCols);
      gemm_nt(x + k, w.cols, tile, kTileCols, y + n, w.rows, T, rows, cols);
    }
  }
}

// --- One token
// -----------------------------------------------------------------------------------------------------

// A 32-byte load holds 8 lanes of kCodes = 32/bits codes; the j-th code of every lane is masked out where it
// is, as an integer 2^(bits·j) times too large, which a factor in x makes up for exactly. So x is laid out to
// match once a call: group c, vector j, lane i = x[(8c + i) kCodes + j] / 2^(bits·j). The zero point leaves
// the loop too, by Σ (code - zero) x = Σ code x - zero Σ x. What remains is a mask, a conversion and an FMA
// for eight weights.
template <unsigned kBits>
struct LaidOut {
  static constexpr size_t kCodes = 32 / kBits, kGroup = kLanes * kCodes;  // codes a lane, codes a load
  static constexpr size_t kSpan = 4096;  // columns at a time: at most 20 KiB of stack
  static constexpr float kZero = 1u << (kBits - 1);

  alignas(32) float x[kSpan];
  alignas(32) float start[kSpan / kCodes];  // group c, lane i: -zero Σ_j x[(8c + i) kCodes + j]

  // Columns past `count`, up to the end of their group, are 0.
  void fill(const float* from, size_t count) {
    for (size_t lane = 0; lane * kCodes < (count + kGroup - 1) / kGroup * kGroup; ++lane) {
      float* to = x + lane / kLanes * kGroup + lane % kLanes;
      float sum = 0, factor = 1;
      for (size_t j = 0; j < kCodes; ++j, factor /= 1u << kBits) {
        const size_t k = lane * kCodes + j;
        const float value = k < count ? from[k] : 0.0f;
        to[j * kLanes] = j + 1 < kCodes ? value * factor : value;  // the last code is shifted down
        sum += value;
      }
      start[lane] = -kZero * sum;
    }
  }
};

// The scales of a group's lanes, where kScales blocks share the group (1: the group lies in one block) and
// `existing` of them are there.
template <size_t kScales>
__m256 group_scales(const float* scales, size_t existing) {
  if constexpr (kScales == 4) {
    const __m128i mask = _mm256_castsi256_si128(first_lanes(existing));
    const __m256 four = _mm256_castps128_ps256(_mm_maskload_ps(scales, mask));
    return _mm256_permutevar8x32_ps(four, _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3));
  } else if constexpr (kScales == 2) {
    const __m128 low = _mm_broadcast_ss(scales);
    return _mm256_set_m128(existing > 1 ? _mm_broadcast_ss(scales + 1) : low, low);
  } else {
    return _mm256_broadcast_ss(scales);
  }
}

// sum + scales ⊙ (start + Σ_j code_j x_j) for one group.
template <unsigned kBits>
[[gnu::always_inline]] inline __m256 add_group(__m256 sum, __m256i codes, __m256 scales, const float* x,
                                               const float* start) {
  constexpr size_t kCodes = 32 / kBits;
  const auto code = [&](size_t j) {
    if (j == kCodes - 1)
      return _mm256_cvtepi32_ps(_mm256_srli_epi32(codes, 32 - kBits));  // masked, it would be signed
    const int mask = ((1 << kBits) - 1) << (kBits * j);
    return _mm256_cvtepi32_ps(_mm256_and_si256(codes, _mm256_set1_epi32(mask)));
  };
  __m256 even = _mm256_load_ps(start), odd = _mm256_setzero_ps();
  for (size_t j = 0; j < kCodes; j += 2) {
    even = _mm256_fmadd_ps(code(j), _mm256_load_ps(x + j * 8), even);
    odd = _mm256_fmadd_ps(code(j + 1), _mm256_load_ps(x + (j + 1) * 8), odd);
  }
  return _mm256_fmadd_ps(scales, _mm256_add_ps(even, odd), sum);
}

// The dot product of `count` columns with the part of a row that starts at `packed` and `scales`, in blocks
// of 2^block_log2 (a shift, because a division would take longer than all the rest of a group).
template <unsigned kBits, size_t kScales>
float dot_packed(const LaidOut<kBits>& x, const uint8_t* packed, const float* scales, unsigned block_log2,
                 size_t count) {
  constexpr size_t kGroup = LaidOut<kBits>::kGroup, kCodes = LaidOut<kBits>::kCodes;
  __m256 sum = _mm256_setzero_ps();
  size_t k = 0;
  for (; k + kGroup <= count; k += kGroup) {
    const __m256i codes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(packed + k * kBits / 8));
    const __m256 factors = group_scales<kScales>(scales + (k >> block_log2), kScales);
    sum = add_group<kBits>(sum, codes, factors, x.x + k, x.start + k / kCodes);
  }
  if (k < count) {
    const __m256i there = first_lanes((count - k) / kCodes);
    const __m256i codes = _mm256_maskload_epi32(reinterpret_cast<const int*>(packed + k * kBits / 8), there);
    const __m256 factors = group_scales<kScales>(scales + (k >> block_log2), (count - k) >> block_log2);
    sum = add_group<kBits>(sum, codes, factors, x.x + k, x.start + k / kCodes);
  }
  return simd::sum(sum);
}

template <unsigned kBits, size_t kScales>
void add_product_of_token(const float* x, const NBitsMatrix& w, float* y, size_t n_begin, size_t n_end) {
  const unsigned block_log2 = static_cast<unsigned>(__builtin_ctzll(w.block));
  LaidOut<kBits> laid_out;
  for (size_t k = 0; k < w.cols; k += laid_out.kSpan) {
    const size_t count = smaller(laid_out.kSpan, w.cols - k);
    laid_out.fill(x + k, count);
    float room[laid_out.kSpan / kLeastBlock];
    for (size_t n = n_begin; n < n_end; ++n) {
      const size_t first = n * w.cols + k;
      y[n] += dot_packed<kBits, kScales>(laid_out, w.packed + first * kBits / 8,
                                         float_scales(w, first >> block_log2, count >> block_log2, room),
                                         block_log2, count);
    }
  }
}

}  // namespace

void linear_f32(const float* x, const float* w, const float* bias, float* y, size_t T, size_t K, size_t N,
                size_t n_begin, size_t n_end) {
  fill_with_bias(bias, y, T, N, n_begin, n_end);
  (N <= kOrderedRows ? gemm_nt_dots : gemm_nt)(x, K, w + n_begin * K, K, y + n_begin, N, T, n_end - n_begin,
                                               K);
}

void linear_nbits(const float* x, const NBitsMatrix& w, const float* bias, float* y, size_t T, size_t n_begin,
                  size_t n_end) {
  if (T == 0) return;  // x may then be null
  fill_with_bias(bias, y, T, w.rows, n_begin, n_end);
  // Zero points are rare (our exporter writes none): the general path serves them.
  if (T != 1 || w.zero_points != nullptr || w.half_zeros != nullptr) {
    add_product_of_block(x, w, y, T, n_begin, n_end);
  } else if (w.bits == 8) {
    (w.block == 16 ? add_product_of_token<8, 2> : add_product_of_token<8, 1>)(x, w, y, n_begin, n_end);
  } else if (w.block == 16) {
    add_product_of_token<4, 4>(x, w, y, n_begin, n_end);
  } else {
    (w.block == 32 ? add_product_of_token<4, 2> : add_product_of_token<4, 1>)(x, w, y, n_begin, n_end);
  }
}

}  // namespace allmem::avx2
