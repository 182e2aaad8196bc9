// Linear layers with 4- or 8-bit weights and 8-bit activations in 32-byte registers: the code that AVX2 and
// AVX-VNNI share, which differ in how they multiply bytes (`Dot`). Structure as in linear_q8_zmm.h; a
// tile of 16 rows takes two registers.
//
// Everything has internal linkage, so that no code escapes the instruction set of the file that includes it.
#pragma once

#include "kernels/x86/avx2_math.h"

namespace allmem::avx2 {
namespace {

constexpr size_t kTileRows = 16, kTileGroups = 8;  // 512 columns: the tile takes 8 KiB
constexpr size_t kFewTokens = 3;                   // below it a tile does not repay being unpacked
constexpr size_t kTokens = 4;                      // at a time, of a tile: 8 sums stay in registers
constexpr size_t kDwords = kQ8Group / 4;           // of a group of codes
// As in linear_q8_zmm.h, but nearer, and each line of 4-bit weights twice: on a Zen 3, 1.27 of plain
// reading's speed; 768 bytes ahead 1.20, and once only 1.02.
constexpr size_t kStreams = 4, kAhead = 384;

// Keeps the compiler from reordering a sum: integer sums have no order, and the one it prefers needs all of
// the terms at once, which are too many for the registers.
[[gnu::always_inline]] inline void keep_order([[maybe_unused]] __m256i& sum) { asm("" : "+x"(sum)); }

// Four codes of a token, for every row of a tile.
[[gnu::always_inline]] inline __m256i four_codes(const int8_t* codes) {
  int four;
  __builtin_memcpy(&four, codes, sizeof(four));
  return _mm256_set1_epi32(four);
}

inline __m256i load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }

// A group of 64 weights, one a byte, in the order of Q8Rows.
struct GroupCodes {
  __m256i low, high;
};
template <typename Dot, unsigned kBits>
[[gnu::always_inline]] inline GroupCodes group_codes(const uint8_t* packed) {
  if constexpr (kBits == 8) {
    return {Dot::template prepare<8>(load(packed)), Dot::template prepare<8>(load(packed + 32))};
  } else {
    const __m256i pairs = load(packed), nibble = _mm256_set1_epi8(0xF);
    return {_mm256_and_si256(pairs, nibble), _mm256_and_si256(_mm256_srli_epi16(pairs, 4), nibble)};
  }
}

inline float scale_of(const NBitsMatrix& w, size_t n, size_t group) {
  const size_t at = n * (w.cols / w.block) + group * kQ8Group / w.block;
  return w.half_scales == nullptr ? w.scales[at] : _cvtsh_ss(w.half_scales[at]);
}

// The eight scales from number `at` on.
[[gnu::always_inline]] inline __m256 eight_scales(const NBitsMatrix& w, size_t at) {
  if (w.half_scales == nullptr) return _mm256_loadu_ps(w.scales + at);
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(w.half_scales + at)));
}

// --- Few tokens

// Lane r = the sum of row r, whose halves are in the two halves of `first` (rows 0 to 3) or `last` (4 to 7).
[[gnu::always_inline]] inline __m256i sums_of_halves(__m256i first, __m256i last) {
  return _mm256_add_epi32(_mm256_permute2x128_si256(first, last, 0x20),
                          _mm256_permute2x128_si256(first, last, 0x31));
}

// Each half: the sums of that half's lanes of v[0], v[1], v[2] and v[3].
[[gnu::always_inline]] inline __m256i half_sums(const __m256i* v) {
  const __m256i a = _mm256_add_epi32(_mm256_unpacklo_epi32(v[0], v[1]), _mm256_unpackhi_epi32(v[0], v[1])),
                b = _mm256_add_epi32(_mm256_unpacklo_epi32(v[2], v[3]), _mm256_unpackhi_epi32(v[2], v[3]));
  return _mm256_add_epi32(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
}

// Lane r = the sum of v[r]'s lanes.
[[gnu::always_inline]] inline __m256i sums_of(const __m256i v[8]) {
  return sums_of_halves(half_sums(v), half_sums(v + 4));
}

// a, b: 8 pairs of floats -> their first ones, their second ones.
[[gnu::always_inline]] inline void split_pairs(__m256& a, __m256& b) {
  const auto in_rows = [](__m256 v) {
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(v), 0xD8));
  };
  const __m256 first = _mm256_shuffle_ps(a, b, 0x88), second = _mm256_shuffle_ps(a, b, 0xDD);
  a = in_rows(first);
  b = in_rows(second);
}

// Rows n, n + step, ... of a matrix: `rows` <= kStreams, the last one repeated.
struct Rows {
  size_t n, step, rows;
  size_t operator[](size_t r) const { return n + smaller(r, rows - 1) * step; }
};

// to[g][r] = rows[r] lane g.
[[gnu::always_inline]] inline void store_by_group(const __m256 rows[kStreams], float (*to)[kStreams]) {
  const __m256d a = _mm256_castps_pd(_mm256_unpacklo_ps(rows[0], rows[1])),
                b = _mm256_castps_pd(_mm256_unpackhi_ps(rows[0], rows[1])),
                c = _mm256_castps_pd(_mm256_unpacklo_ps(rows[2], rows[3])),
                d = _mm256_castps_pd(_mm256_unpackhi_ps(rows[2], rows[3]));
  const __m256d groups[4] = {_mm256_unpacklo_pd(a, c), _mm256_unpackhi_pd(a, c), _mm256_unpacklo_pd(b, d),
                             _mm256_unpackhi_pd(b, d)};
#pragma GCC unroll 4
  for (size_t g = 0; g < 4; ++g) {
    _mm_store_ps(to[g], _mm_castpd_ps(_mm256_castpd256_pd128(groups[g])));
    _mm_store_ps(to[g + 4], _mm_castpd_ps(_mm256_extractf128_pd(groups[g], 1)));
  }
}

// factors[g][r] = the scale of group `group` + g of row r times x_scales[g], g < count <= kTileGroups.
inline void multiply_scales(const NBitsMatrix& w, const float* x_scales, const Rows& row, size_t group,
                            size_t count, float (*factors)[kStreams]) {
  if (w.block != kQ8Group || count < kTileGroups) {
    for (size_t g = 0; g < count; ++g)
      for (size_t r = 0; r < kStreams; ++r) factors[g][r] = scale_of(w, row[r], group + g) * x_scales[g];
    return;
  }
  const __m256 of_x = _mm256_loadu_ps(x_scales);
  __m256 f[kStreams];
#pragma GCC unroll 4
  for (size_t r = 0; r < kStreams; ++r) {
    f[r] = _mm256_mul_ps(eight_scales(w, row[r] * (w.cols / kQ8Group) + group), of_x);
  }
  store_by_group(f, factors);
}

// y[t, row[r]] for M tokens, two groups at a time.
template <typename Dot, unsigned kBits, size_t M>
inline void rows_by_tokens(const Q8Rows& x, const NBitsMatrix& w, const Init& init, float* y,
                           const Rows& row) {
  constexpr size_t kGroupBytes = kQ8Group * kBits / 8;
  const size_t groups = w.cols / kQ8Group, row_bytes = groups * kGroupBytes;
  alignas(16) float values[M][kStreams];  // a lane for each row
  const uint8_t* packed[kStreams];
#pragma GCC unroll 4
  for (size_t r = 0; r < kStreams; ++r) {
    packed[r] = w.packed + row[r] * row_bytes;
    for (size_t t = 0; t < M; ++t) values[t][r] = init.start(t, row[r], y[t * w.rows + row[r]]);
  }
  __m128 sums[M];
  for (size_t t = 0; t < M; ++t) sums[t] = _mm_load_ps(values[t]);
  alignas(32) float factors[M][kTileGroups][kStreams];
  const auto add = [&]<size_t kCount>(size_t g, size_t into) __attribute__((always_inline)) {
    __m256i products[M][2 * kStreams];
#pragma GCC unroll 2
    for (size_t i = 0; i < 2; ++i) {
#pragma GCC unroll 4
      for (size_t r = 0; r < kStreams; ++r) {
        if (i >= kCount) {
          for (size_t t = 0; t < M; ++t) products[t][i * kStreams + r] = _mm256_setzero_si256();
          continue;
        }
        const uint8_t* group = packed[r] + (g + i) * kGroupBytes;
        _mm_prefetch(reinterpret_cast<const char*>(group + kAhead), _MM_HINT_T0);
        const GroupCodes codes = group_codes<Dot, kBits>(group);
#pragma GCC unroll 2
        for (size_t t = 0; t < M; ++t) {
          const int8_t* xs = x.codes + t * w.cols + (g + i) * kQ8Group;
          products[t][i * kStreams + r] =
              Dot::template pair<kBits>(codes.low, load(xs), codes.high, load(xs + 32));
        }
      }
    }
#pragma GCC unroll 2
    for (size_t t = 0; t < M; ++t) {
      const int32_t* starts = x.sums + t * groups + g;
      const __m128i first = _mm_set1_epi32(Dot::template start<kBits>(starts[0])),
                    second = _mm_set1_epi32(kCount == 2 ? Dot::template start<kBits>(starts[1]) : 0);
      const __m256i start = _mm256_set_m128i(second, first);
      const __m256 totals =
          _mm256_cvtepi32_ps(_mm256_add_epi32(Dot::template sums<kBits>(products[t]), start));
      sums[t] = _mm_fmadd_ps(_mm256_castps256_ps128(totals), _mm_load_ps(factors[t][into]), sums[t]);
      if (kCount == 2)
        sums[t] = _mm_fmadd_ps(_mm256_extractf128_ps(totals, 1), _mm_load_ps(factors[t][into + 1]), sums[t]);
    }
  };
  for (size_t begin = 0; begin < groups; begin += kTileGroups) {
    const size_t count = smaller(kTileGroups, groups - begin);
    for (size_t t = 0; t < M; ++t)
      multiply_scales(w, x.scales + t * groups + begin, row, begin, count, factors[t]);
    size_t i = 0;
    for (; i + 2 <= count; i += 2) add.template operator()<2>(begin + i, i);
    if (i < count) add.template operator()<1>(begin + i, i);
  }
  for (size_t t = 0; t < M; ++t) {
    _mm_store_ps(values[t], sums[t]);
    for (size_t r = 0; r < row.rows; ++r) y[t * w.rows + row[r]] = values[t][r];
  }
}

// The scales of 8 rows of kGroups each: scales[i] lane r, 8 i + r in memory -> the scale of group i of row r.
template <size_t kGroups>
[[gnu::always_inline]] inline void split_groups(__m256 scales[kGroups]) {
  if constexpr (kGroups == 2) {
    split_pairs(scales[0], scales[1]);
  } else if constexpr (kGroups == 4) {
    split_pairs(scales[0], scales[1]);  // groups 0 and 2, 1 and 3 of rows 0 to 3
    split_pairs(scales[2], scales[3]);  // of rows 4 to 7
    split_pairs(scales[0], scales[2]);
    split_pairs(scales[1], scales[3]);
  }
}

// The rows [n_begin, n_end) of a matrix with few columns, kGroups groups in blocks of one, for one token;
// their count is a multiple of 8.
template <typename Dot, unsigned kBits, size_t kGroups>
inline void short_rows(const Q8Rows& x, const NBitsMatrix& w, const Init& init, float* y, size_t n_begin,
                       size_t n_end) {
  constexpr size_t kGroupBytes = kQ8Group * kBits / 8, kRowBytes = kGroups * kGroupBytes, kRows = kLanes;
  for (size_t n = n_begin; n < n_end; n += kRows) {
    __m256 scales[kGroups];
#pragma GCC unroll 4
    for (size_t g = 0; g < kGroups; ++g) scales[g] = eight_scales(w, n * kGroups + g * kRows);
    split_groups<kGroups>(scales);
    __m256 sums = init.bias ? _mm256_loadu_ps(init.bias + n) : _mm256_setzero_ps();
    if (init.beta != nullptr) sums = _mm256_mul_ps(_mm256_loadu_ps(y + n), _mm256_set1_ps(*init.beta));
#pragma GCC unroll 4
    for (size_t g = 0; g < kGroups; ++g) {
      const __m256i low = load(x.codes + g * kQ8Group), high = load(x.codes + g * kQ8Group + 32);
      __m256i products[kRows];
#pragma GCC unroll 8
      for (size_t r = 0; r < kRows; ++r) {
        const uint8_t* packed = w.packed + n * kRowBytes + r * kRowBytes + g * kGroupBytes;
        _mm_prefetch(reinterpret_cast<const char*>(packed + 4 * kAhead), _MM_HINT_T0);  // in one place
        const GroupCodes codes = group_codes<Dot, kBits>(packed);
        products[r] = Dot::template pair<kBits>(codes.low, low, codes.high, high);
      }
      const __m256i start = _mm256_set1_epi32(Dot::template start<kBits>(x.sums[g]));
      const __m256i totals = _mm256_add_epi32(Dot::template sums<kBits>(products), start);
      const __m256 factors = _mm256_mul_ps(scales[g], _mm256_set1_ps(x.scales[g]));
      sums = _mm256_fmadd_ps(_mm256_cvtepi32_ps(totals), factors, sums);
    }
    _mm256_storeu_ps(y + n, sums);
  }
}

// Whether short_rows() has these.
inline bool are_short(const NBitsMatrix& w) {
  const size_t groups = w.cols / kQ8Group;
  return w.block == kQ8Group && (groups == 1 || groups == 2 || groups == 4);
}

// Two tokens at a time use what is read; the others find it in the cache.
template <typename Dot, unsigned kBits>
inline void product_of_few(const Q8Rows& x, const NBitsMatrix& w, const Init& init, float* y, size_t T,
                           size_t n_begin, size_t n_end) {
  const size_t groups = w.cols / kQ8Group, whole = n_begin + (n_end - n_begin) / kLanes * kLanes;
  const auto from = [&](size_t t) {
    return Q8Rows{x.codes + t * w.cols, x.scales + t * groups, x.sums + t * groups};
  };
  const auto rows = [&](const Rows& row) {
    for (size_t t = 0; t < T; t += 2)
      (T - t == 1 ? rows_by_tokens<Dot, kBits, 1>
                  : rows_by_tokens<Dot, kBits, 2>)(from(t), w, init.from_token(t), y + t * w.rows, row);
  };
  const auto short_ones = [&]<size_t kGroups>() {
    for (size_t t = 0; t < T; ++t)
      short_rows<Dot, kBits, kGroups>(from(t), w, init.from_token(t), y + t * w.rows, n_begin, whole);
  };
  size_t n = whole;
  if (!are_short(w)) {
    const size_t step = (n_end - n_begin) / kStreams;
    for (n = n_begin; n < n_begin + step; ++n) rows({n, step, kStreams});
    n = n_begin + kStreams * step;
  } else if (groups == 1) {
    short_ones.template operator()<1>();
  } else if (groups == 2) {
    short_ones.template operator()<2>();
  } else {
    short_ones.template operator()<4>();
  }
  for (; n < n_end; n += kStreams) rows({n, 1, smaller(kStreams, n_end - n)});
}

// --- A block of tokens

// 16 rows of up to kTileGroups groups. codes[g][j][half], lane r: codes 4j..4j+3 of group g of row 8 half +
// r.
struct Tile {
  alignas(32) __m256i codes[kTileGroups][kDwords][2];
  alignas(32) float scales[kTileGroups][kTileRows];
};

inline void unpack_scales(const NBitsMatrix& w, size_t n, size_t rows, size_t group, size_t count,
                          Tile& tile) {
  const auto row = [&](size_t r) { return n + smaller(r, rows - 1); };
  if (w.block != kQ8Group || count < kTileGroups) {
    for (size_t g = 0; g < count; ++g)
      for (size_t r = 0; r < kTileRows; ++r) tile.scales[g][r] = scale_of(w, row(r), group + g);
    return;
  }
  const size_t stride = w.cols / kQ8Group;
  for (size_t half = 0; half < kTileRows; half += kLanes) {
    __m256i m[kLanes];
#pragma GCC unroll 8
    for (size_t r = 0; r < kLanes; ++r) {
      const size_t at = row(half + r) * stride + group, below = at + kTileRows * stride;
      const void* next = w.half_scales == nullptr ? static_cast<const void*>(w.scales + below)
                                                  : static_cast<const void*>(w.half_scales + below);
      _mm_prefetch(static_cast<const char*>(next), _MM_HINT_T1);
      m[r] = _mm256_castps_si256(eight_scales(w, at));
    }
    transpose(m);
#pragma GCC unroll 8
    for (size_t g = 0; g < kTileGroups; ++g)
      _mm256_store_ps(tile.scales[g] + half, _mm256_castsi256_ps(m[g]));
  }
}

template <typename Dot, unsigned kBits>
inline void unpack_codes(const NBitsMatrix& w, size_t n, size_t rows, size_t group, size_t count,
                         __m256i (*codes)[kDwords][2]) {
  constexpr size_t kGroupBytes = kQ8Group * kBits / 8;
  const size_t row_bytes = w.cols / kQ8Group * kGroupBytes;
  const __m256i nibble = _mm256_set1_epi8(0xF);
  for (size_t g = 0; g < count; ++g) {
    for (size_t half = 0; half < 2; ++half) {
#pragma GCC unroll 2
      for (size_t part = 0; part < kGroupBytes / 32; ++part) {
        __m256i m[kLanes];
#pragma GCC unroll 8
        for (size_t r = 0; r < kLanes; ++r) {
          const size_t row = n + smaller(kLanes * half + r, rows - 1);
          const __m256i packed = load(w.packed + row * row_bytes + (group + g) * kGroupBytes + 32 * part);
          m[r] = kBits == 8 ? Dot::template prepare<8>(packed) : packed;
        }
        transpose(m);
#pragma GCC unroll 8
        for (size_t j = 0; j < kLanes; ++j) {
          if constexpr (kBits == 8) {
            codes[g][kLanes * part + j][half] = m[j];
          } else {
            codes[g][j][half] = _mm256_and_si256(m[j], nibble);
            codes[g][kLanes + j][half] = _mm256_and_si256(_mm256_srli_epi16(m[j], 4), nibble);
          }
        }
      }
    }
  }
}

// As many bytes of the rows below as a tile has: the first tokens fetch them while they use the tile, in the
// order in which they lie in memory, as that is what memory is fast at.
struct Below {
  const uint8_t* packed;

  template <unsigned kBits>
  [[gnu::always_inline]] void fetch(size_t g) const {
    constexpr size_t kLine = 64, kBytes = kTileRows * kQ8Group * kBits / 8;  // of a group
#pragma GCC unroll 16
    for (size_t i = 0; i < kBytes; i += kLine)
      _mm_prefetch(reinterpret_cast<const char*>(packed + g * kBytes + i), _MM_HINT_T1);
  }
};

// The columns of y that a tile's product goes to: [T, N] from the tile's first row on.
struct Target {
  float* y;
  size_t N, rows;
  Init init;   // its bias from the tile's first row on
  bool first;  // y starts from `init`; else it has the products of earlier columns

  size_t count(size_t r) const { return rows > r ? smaller(rows - r, kLanes) : 0; }
  void load(size_t t, float sums[kTileRows]) const {
    const float* from = first && init.beta == nullptr ? init.bias : y + t * N;
    for (size_t r = 0; r < kTileRows; r += kLanes) {
      __m256 start = from == nullptr ? _mm256_setzero_ps() : load_first(from + r, count(r));
      if (first && init.beta != nullptr) start = _mm256_mul_ps(start, _mm256_set1_ps(init.beta[t]));
      _mm256_store_ps(sums + r, start);
    }
  }
  void store(size_t t, const float sums[kTileRows]) const {
    for (size_t r = 0; r < kTileRows; r += kLanes)
      store_first(y + t * N + r, count(r), _mm256_load_ps(sums + r));
  }
};

// Adds the tile's products with the tokens t, ..., t + M - 1.
template <typename Dot, unsigned kBits, size_t M>
inline void multiply(const Tile& tile, const Q8Rows& x, size_t t, size_t K, size_t group, size_t count,
                     const Below& below, const Target& to) {
  const size_t groups = K / kQ8Group;
  alignas(32) float sums[M][kTileRows];
  for (size_t i = 0; i < M; ++i) to.load(t + i, sums[i]);
  for (size_t g = 0; g < count; ++g) {
    const size_t scale = t * groups + group + g;
    if (t == 0) below.fetch<kBits>(g);
    __m256i products[M][2];
    Dot::template products<kBits, M>(tile.codes[g], x.codes + t * K + (group + g) * kQ8Group, K,
                                     x.sums + scale, groups, products);
#pragma GCC unroll 4
    for (size_t i = 0; i < M; ++i) {
      const __m256 x_scale = _mm256_set1_ps(x.scales[scale + i * groups]);
#pragma GCC unroll 2
      for (size_t half = 0; half < 2; ++half) {
        float* sum = sums[i] + kLanes * half;
        const __m256 factor = _mm256_mul_ps(_mm256_load_ps(tile.scales[g] + kLanes * half), x_scale);
        const __m256 product = _mm256_cvtepi32_ps(products[i][half]);
        _mm256_store_ps(sum, _mm256_fmadd_ps(product, factor, _mm256_load_ps(sum)));
      }
    }
  }
  for (size_t i = 0; i < M; ++i) to.store(t + i, sums[i]);
}

// The products of all rows, tile by tile. unpack(n, rows, group, count, tile) fills a tile;
// multiply.operator()<M>(tile, n, group, count, t, to) adds its product with the tokens t, ..., t + M - 1.
template <typename AnyTile, typename Unpack, typename Multiply>
[[gnu::always_inline]] inline void by_tiles(const NBitsMatrix& w, const Init& init, float* y, size_t T,
                                            size_t n_begin, size_t n_end, const Unpack& unpack,
                                            const Multiply& multiply) {
  const size_t groups = w.cols / kQ8Group;
  AnyTile tile;
  for (size_t n = n_begin; n < n_end; n += kTileRows) {
    const size_t rows = smaller(kTileRows, n_end - n);
    for (size_t g = 0; g < groups; g += kTileGroups) {
      const size_t count = smaller(kTileGroups, groups - g);
      unpack(n, rows, g, count, tile);
      const Target to{y + n, w.rows, rows, {init.bias ? init.bias + n : nullptr, init.beta}, g == 0};
      size_t t = 0;
      const auto tokens = [&]<size_t M>() __attribute__((always_inline)) {
        for (; t + M <= T; t += M) multiply.template operator()<M>(tile, n, g, count, t, to);
      };
      tokens.template operator()<kTokens>();
      tokens.template operator()<3>();
      tokens.template operator()<2>();
      tokens.template operator()<1>();
    }
  }
}

template <typename Dot, unsigned kBits>
inline void product_of_block(const Q8Rows& x, const NBitsMatrix& w, const Init& init, float* y, size_t T,
                             size_t n_begin, size_t n_end) {
  const size_t groups = w.cols / kQ8Group;
  by_tiles<Tile>(
      w, init, y, T, n_begin, n_end,
      [&](size_t n, size_t rows, size_t g, size_t count, Tile& tile) {
        unpack_codes<Dot, kBits>(w, n, rows, g, count, tile.codes);
        unpack_scales(w, n, rows, g, count, tile);
      },
      [&]<size_t M>(const Tile& tile, size_t n, size_t g, size_t count, size_t t, const Target& to) {
        const Below below{w.packed + ((n + kTileRows) * groups + kTileRows * g) * (kQ8Group * kBits / 8)};
        multiply<Dot, kBits, M>(tile, x, t, w.cols, g, count, below, to);
      });
}

template <typename Dot>
inline void product(const Q8Rows& x, const NBitsMatrix& w, const Init& init, float* y, size_t T,
                    size_t n_begin, size_t n_end) {
  if (T < kFewTokens || (T == kFewTokens && are_short(w)))
    return (w.bits == 4 ? product_of_few<Dot, 4> : product_of_few<Dot, 8>)(x, w, init, y, T, n_begin, n_end);
  (w.bits == 4 ? product_of_block<Dot, 4> : product_of_block<Dot, 8>)(x, w, init, y, T, n_begin, n_end);
}

}  // namespace
}  // namespace allmem::avx2
