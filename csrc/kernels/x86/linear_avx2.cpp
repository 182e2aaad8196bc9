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

constexpr size_t kTileRows = 8, kTileCols = 512;  // 16 KiB of floats: half of the first-level cache

// 16 codes, in order, one a byte.
__m128i sixteen_codes(const uint8_t* packed, unsigned bits) {
  if (bits == 8) return _mm_loadu_si128(reinterpret_cast<const __m128i*>(packed));
  const __m128i pairs = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(packed));
  const __m128i nibble = _mm_set1_epi8(0xF);
  const __m128i even = _mm_and_si128(pairs, nibble), odd = _mm_and_si128(_mm_srli_epi16(pairs, 4), nibble);
  return _mm_unpacklo_epi8(even, odd);
}

unsigned zero_point(const NBitsMatrix& w, size_t n, size_t b) {
  if (w.zero_points == nullptr) return 1u << (w.bits - 1);
  const size_t row_bytes = (w.cols / w.block * w.bits + 7) / 8;
  const uint8_t* row = w.zero_points + n * row_bytes;
  return w.bits == 8 ? row[b] : (row[b / 2] >> (b % 2 * 4)) & 0xF;
}

// out[k - k_begin] = (code - zero) * scale for the columns k_begin <= k < k_end of row n, whole blocks.
void unpack_row(const NBitsMatrix& w, size_t n, size_t k_begin, size_t k_end, float* out) {
  const uint8_t* row = w.packed + n * (w.cols * w.bits / 8);
  const float* scales = w.scales + n * (w.cols / w.block);
  for (size_t block = k_begin; block < k_end; block += w.block) {
    const __m256 scale = _mm256_broadcast_ss(scales + block / w.block);
    const __m256i zero = _mm256_set1_epi32(static_cast<int>(zero_point(w, n, block / w.block)));
    for (size_t k = block; k < block + w.block; k += 16, out += 16) {
      const __m128i codes = sixteen_codes(row + k * w.bits / 8, w.bits);
      const __m256i low = _mm256_sub_epi32(_mm256_cvtepu8_epi32(codes), zero);
      const __m256i high = _mm256_sub_epi32(_mm256_cvtepu8_epi32(_mm_srli_si128(codes, 8)), zero);
      _mm256_storeu_ps(out, _mm256_mul_ps(_mm256_cvtepi32_ps(low), scale));
      _mm256_storeu_ps(out + kLanes, _mm256_mul_ps(_mm256_cvtepi32_ps(high), scale));
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

// --- One token, 4 bits
// -------------------------------------------------------------------------------------------

// A 32-byte load holds 64 codes: lane i has codes 8i ... 8i + 7, the j-th at bit 4j. Shifting by 4j brings
// the j-th code of each lane down, so x is laid out to match once per call: group c, vector j, lane i = x[64c
// + 8i + j]. The zero point 8 leaves the loop too: Σ (code - 8) x = Σ code x - 8 Σ x.
constexpr size_t kGroup = 64, kSpan = 4096;  // codes a load; columns laid out at a time (18 KiB of stack)

struct Shuffled {
  alignas(32) float x[kSpan];
  alignas(32) float start[kSpan / kLanes];  // per group, lane i: -8 Σ_j x[64c + 8i + j]
};

void shuffle(const float* x, size_t count, Shuffled& out) {
  for (size_t c = 0; c * kGroup < count; ++c) {
    for (size_t i = 0; i < kLanes; ++i) {
      float sum = 0;
      for (size_t j = 0; j < kLanes; ++j) {
        const size_t k = c * kGroup + i * kLanes + j;
        const float value = k < count ? x[k] : 0.0f;
        out.x[c * kGroup + j * kLanes + i] = value;
        sum += value;
      }
      out.start[c * kLanes + i] = -8.0f * sum;
    }
  }
}

// The scale of each lane's eight codes, for one group of which `count` codes exist.
template <size_t kBlock>
__m256 group_scales(const float* scales, size_t count) {
  if constexpr (kBlock == 16) {
    const __m128i existing = _mm256_castsi256_si128(first_lanes(count / 16));
    const __m256 four = _mm256_castps128_ps256(_mm_maskload_ps(scales, existing));
    return _mm256_permutevar8x32_ps(four, _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3));
  } else if constexpr (kBlock == 32) {
    const __m128 low = _mm_broadcast_ss(scales);
    return _mm256_set_m128(count > 32 ? _mm_broadcast_ss(scales + 1) : low, low);
  } else {
    return _mm256_broadcast_ss(scales);
  }
}

// Σ over one group: `scales` ⊙ (start + Σ_j code_j x_j), added to `sum`.
__m256 add_group(__m256 sum, __m256i codes, __m256 scales, const float* x, const float* start) {
  const __m256i nibble = _mm256_set1_epi32(0xF);
  const auto code = [&](int j) {
    return _mm256_cvtepi32_ps(_mm256_and_si256(_mm256_srli_epi32(codes, 4 * j), nibble));
  };
  __m256 even = _mm256_load_ps(start), odd = _mm256_setzero_ps();
  for (int j = 0; j < 8; j += 2) {
    even = _mm256_fmadd_ps(code(j), _mm256_load_ps(x + j * 8), even);
    odd = _mm256_fmadd_ps(code(j + 1), _mm256_load_ps(x + (j + 1) * 8), odd);
  }
  return _mm256_fmadd_ps(scales, _mm256_add_ps(even, odd), sum);
}

// The dot product of `count` columns with a row that starts at `packed` and `scales`. kBlock 64 stands for
// all above.
template <size_t kBlock>
float dot_4bit(const Shuffled& x, const uint8_t* packed, const float* scales, size_t block, size_t count) {
  __m256 sum = _mm256_setzero_ps();
  size_t k = 0;
  for (; k + kGroup <= count; k += kGroup) {
    const __m256i codes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(packed + k / 2));
    sum = add_group(sum, codes, group_scales<kBlock>(scales + k / block, kGroup), x.x + k,
                    x.start + k / kLanes);
  }
  if (k < count) {
    const __m256i existing = first_lanes((count - k) / kLanes);
    const __m256i codes = _mm256_maskload_epi32(reinterpret_cast<const int*>(packed + k / 2), existing);
    sum = add_group(sum, codes, group_scales<kBlock>(scales + k / block, count - k), x.x + k,
                    x.start + k / kLanes);
  }
  return horizontal_sum(sum);
}

template <size_t kBlock>
void add_product_4bit(const float* x, const NBitsMatrix& w, float* y, size_t n_begin, size_t n_end) {
  Shuffled shuffled;
  for (size_t k = 0; k < w.cols; k += kSpan) {
    const size_t count = smaller(kSpan, w.cols - k);
    shuffle(x + k, count, shuffled);
    for (size_t n = n_begin; n < n_end; ++n) {
      y[n] += dot_4bit<kBlock>(shuffled, w.packed + (n * w.cols + k) / 2,
                               w.scales + (n * w.cols + k) / w.block, w.block, count);
    }
  }
}

// --- One token, 8 bits
// -------------------------------------------------------------------------------------------

float dot_8bit(const float* x, const uint8_t* codes, const float* scales, size_t block, size_t K) {
  const __m128i sign = _mm_set1_epi8(static_cast<char>(0x80));  // flips code into code - 128 as a signed byte
  __m256 sum = _mm256_setzero_ps();
  for (size_t b = 0; b < K; b += block) {
    __m256 even = _mm256_setzero_ps(), odd = _mm256_setzero_ps();
    for (size_t k = b; k < b + block; k += 16) {
      const __m128i signed_codes =
          _mm_xor_si128(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes + k)), sign);
      const __m256i low = _mm256_cvtepi8_epi32(signed_codes);
      const __m256i high = _mm256_cvtepi8_epi32(_mm_srli_si128(signed_codes, 8));
      even = _mm256_fmadd_ps(_mm256_cvtepi32_ps(low), _mm256_loadu_ps(x + k), even);
      odd = _mm256_fmadd_ps(_mm256_cvtepi32_ps(high), _mm256_loadu_ps(x + k + kLanes), odd);
    }
    sum = _mm256_fmadd_ps(_mm256_broadcast_ss(scales + b / block), _mm256_add_ps(even, odd), sum);
  }
  return horizontal_sum(sum);
}

}  // namespace

void linear_f32(const float* x, const float* w, const float* bias, float* y, size_t T, size_t K, size_t N,
                size_t n_begin, size_t n_end) {
  fill_with_bias(bias, y, T, N, n_begin, n_end);
  gemm_nt(x, K, w + n_begin * K, K, y + n_begin, N, T, n_end - n_begin, K);
}

void linear_nbits(const float* x, const NBitsMatrix& w, const float* bias, float* y, size_t T, size_t n_begin,
                  size_t n_end) {
  fill_with_bias(bias, y, T, w.rows, n_begin, n_end);
  // Zero points are rare (our exporter writes none): the general path serves them.
  if (T != 1 || w.zero_points != nullptr) {
    add_product_of_block(x, w, y, T, n_begin, n_end);
  } else if (w.bits == 8) {
    for (size_t n = n_begin; n < n_end; ++n)
      y[n] += dot_8bit(x, w.packed + n * w.cols, w.scales + n * (w.cols / w.block), w.block, w.cols);
  } else if (w.block == 16) {
    add_product_4bit<16>(x, w, y, n_begin, n_end);
  } else if (w.block == 32) {
    add_product_4bit<32>(x, w, y, n_begin, n_end);
  } else {
    add_product_4bit<64>(x, w, y, n_begin, n_end);
  }
}

}  // namespace allmem::avx2
