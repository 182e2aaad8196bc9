// Linear layers with 4- or 8-bit weights and 8-bit activations in 64-byte registers: the code that AVX-512
// VNNI and AMX share, which differ in how they multiply a block of tokens (`Block`).
//
// One instruction multiplies 64 unsigned by 64 signed bytes and adds them up in fours. Few tokens are bound
// by reading the weights: four rows at a time share the activations. A block of tokens is bound by
// arithmetic: a tile of 32 rows is unpacked once into the first-level cache, transposed so that every lane is
// a row.
//
// Everything has internal linkage, so that no code escapes the instruction set of the file that includes it.
#pragma once

#include "kernels/kernels.h"
#include "kernels/x86/avx512_math.h"

namespace allmem::avx512vnni {
namespace {

constexpr size_t kTileRows = 2 * kLanes, kTileGroups = 8;  // by 512 columns: 16 KiB of the first-level cache
// Hardware prefetchers stop at page ends: a matrix is read from several places at a time, fetched ahead in
// each.
constexpr size_t kStreams = 4, kAhead = 768;
constexpr size_t kFewTokens = 4;  // below it a tile does not repay being unpacked

// The codes of a group of 64 weights, one a byte, in the order of Q8Rows.
template <unsigned kBits>
[[gnu::always_inline]] inline __m512i group_codes(const uint8_t* packed) {
  if constexpr (kBits == 8) return _mm512_loadu_si512(packed);
  const __m512i twice = _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(packed)));
  const __m512i shifts = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi64x(4), 1);
  return _mm512_and_si512(_mm512_srlv_epi64(twice, shifts), _mm512_set1_epi8(0xF));
}

// The scales from number `at` on, in the lanes of `there`; 0 in the others.
[[gnu::always_inline]] inline __m512 scales_at(const NBitsMatrix& w, size_t at, __mmask16 there) {
  if (w.half_scales == nullptr) return _mm512_maskz_loadu_ps(there, w.scales + at);
  return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(there, w.half_scales + at));
}

// The scales of the groups [group, group + count) of row n, count <= 16; 0 in the other lanes.
[[maybe_unused]] inline __m512 group_scales(const NBitsMatrix& w, size_t n, size_t group, size_t count) {
  const size_t row = n * (w.cols / w.block);
  if (w.block == kQ8Group) return scales_at(w, row + group, first_lanes(count));
  const int log2 = __builtin_ctzll(w.block / kQ8Group);
  const size_t first = group >> log2, last = (group + count - 1) >> log2;
  const __m512 scales = scales_at(w, row + first, first_lanes(last - first + 1));
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i groups = _mm512_add_epi32(lane, _mm512_set1_epi32(static_cast<int>(group - (first << log2))));
  const __m512i index = _mm512_srl_epi32(groups, _mm_cvtsi32_si128(log2));
  return _mm512_maskz_permutexvar_ps(first_lanes(count), index, scales);
}

// Into the second-level cache: few lines at a time can be on their way to the first, and those are for loads.
// Always inlined: GCC takes a function that only prefetches for one without effect, and drops its calls.
[[gnu::always_inline]] inline void fetch(const uint8_t* codes) {
  _mm_prefetch(reinterpret_cast<const char*>(codes), _MM_HINT_T1);
}

// --- Few tokens

// Each quarter: the sums of that quarter's lanes of v[0], v[1], v[2] and v[3].
[[maybe_unused]] inline __m512i quarter_sums(const __m512i* v) {
  const __m512i a = _mm512_add_epi32(_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1])),
                b = _mm512_add_epi32(_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3]));
  return _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
}

// The same where sums of two lanes fit into 16 bits.
[[maybe_unused]] inline __m512i quarter_sums_of_small(const __m512i* v) {
  const __m512i ones = _mm512_set1_epi16(1);
  const __m512i a = _mm512_madd_epi16(_mm512_packs_epi32(v[0], v[1]), ones),
                b = _mm512_madd_epi16(_mm512_packs_epi32(v[2], v[3]), ones);
  return _mm512_madd_epi16(_mm512_packs_epi32(a, b), ones);
}

// Sums of neighbouring quarters: the two of a, then the two of b.
[[maybe_unused]] inline __m512i half_sums(__m512i a, __m512i b) {
  return _mm512_add_epi32(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xDD));
}

// Lane i = the sum of v[i]'s lanes.
[[maybe_unused]] inline __m512i sums_of(const __m512i v[16]) {
  return half_sums(half_sums(quarter_sums(v), quarter_sums(v + 4)),
                   half_sums(quarter_sums(v + 8), quarter_sums(v + 12)));
}

// Lane 4i + r, i < kCount <= 4: the sum of the products of row r with group g + i of x.
template <unsigned kBits, size_t kCount>
[[gnu::always_inline]] inline __m512i sums_of_groups(const uint8_t* const rows[4], const int8_t* codes) {
  constexpr size_t kGroupBytes = kQ8Group * kBits / 8, kEach = 8 / kBits;  // groups of a load
  constexpr size_t kLoads = (kCount + kEach - 1) / kEach;
  __m512i quarters[kLoads];
#pragma GCC unroll 4
  for (size_t i = 0; i < kLoads; ++i) {
    const int8_t* from = codes + i * kEach * kQ8Group;
    const __m512i x = _mm512_loadu_si512(from);
    __m512i products[4];
    if constexpr (kBits == 8) {
#pragma GCC unroll 4
      for (size_t r = 0; r < 4; ++r) {
        const uint8_t* packed = rows[r] + i * kGroupBytes;
        fetch(packed + kAhead);
        products[r] = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_loadu_si512(packed), x);
      }
      quarters[i] = quarter_sums(products);
    } else {
      const bool both = i * kEach + 1 < kCount;  // else the upper halves are empty
      const __m512i next = both ? _mm512_loadu_si512(from + kQ8Group) : x;
      const __m512i evens = _mm512_shuffle_i64x2(x, next, 0x44), odds = _mm512_shuffle_i64x2(x, next, 0xEE);
      const __m512i low = _mm512_set1_epi8(0x0F);
#pragma GCC unroll 4
      for (size_t r = 0; r < 4; ++r) {
        const uint8_t* packed = rows[r] + i * kEach * kGroupBytes;
        fetch(packed + kAhead);
        const __m512i w =
            both ? _mm512_loadu_si512(packed)
                 : _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(packed)));
        const __m512i lows = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_and_si512(w, low), evens);
        products[r] = _mm512_dpbusd_epi32(lows, _mm512_and_si512(_mm512_srli_epi16(w, 4), low), odds);
      }
      quarters[i] = quarter_sums_of_small(products);  // a lane's eight products: at most 8 * 15 * 127
    }
  }
  if constexpr (kBits == 4) return half_sums(quarters[0], quarters[kLoads - 1]);
  const __m512i first = half_sums(quarters[0], quarters[kLoads > 1 ? 1 : 0]);
  if constexpr (kLoads <= 2) return half_sums(first, first);
  return half_sums(first, half_sums(quarters[kLoads - 2 < 2 ? 2 : kLoads - 2], quarters[kLoads - 1]));
}

// y[n + r step] for one token, r < rows <= 4, four groups at a time.
template <unsigned kBits>
[[maybe_unused]] inline void rows_by_token(const Q8Rows& x, const NBitsMatrix& w, const Init& init, float* y,
                                           size_t n, size_t step, size_t rows) {
  constexpr size_t kRows = kStreams, kGroups = 4, kGroupBytes = kQ8Group * kBits / 8;
  const size_t groups = w.cols / kQ8Group;
  const __m512i quarter = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
  const auto row = [&](size_t r) { return n + smaller(r, rows - 1) * step; };
  const uint8_t* packed[kRows];
  alignas(16) float totals[kRows];  // a lane for each row
#pragma GCC unroll 4
  for (size_t r = 0; r < kRows; ++r) {
    packed[r] = w.packed + row(r) * groups * kGroupBytes;
    totals[r] = init.start(0, row(r), y[row(r)]);
  }
  __m128 sums = _mm_load_ps(totals);
  alignas(64) float factors[kGroups][kLanes];  // [g % 4][g / 4 * 4 + row] of the 16 groups at hand
  for (size_t begin = 0; begin < groups; begin += kLanes) {
    const size_t count = smaller(kLanes, groups - begin);
    const __m512 x_scales = _mm512_maskz_loadu_ps(first_lanes(count), x.scales + begin);
    __m512 f[kRows];
#pragma GCC unroll 4
    for (size_t r = 0; r < kRows; ++r) f[r] = _mm512_mul_ps(group_scales(w, row(r), begin, count), x_scales);
    const __m512d even = _mm512_castps_pd(_mm512_unpacklo_ps(f[0], f[1])),
                  odd = _mm512_castps_pd(_mm512_unpackhi_ps(f[0], f[1])),
                  even2 = _mm512_castps_pd(_mm512_unpacklo_ps(f[2], f[3])),
                  odd2 = _mm512_castps_pd(_mm512_unpackhi_ps(f[2], f[3]));
    _mm512_store_ps(factors[0], _mm512_castpd_ps(_mm512_unpacklo_pd(even, even2)));
    _mm512_store_ps(factors[1], _mm512_castpd_ps(_mm512_unpackhi_pd(even, even2)));
    _mm512_store_ps(factors[2], _mm512_castpd_ps(_mm512_unpacklo_pd(odd, odd2)));
    _mm512_store_ps(factors[3], _mm512_castpd_ps(_mm512_unpackhi_pd(odd, odd2)));
    const auto add = [&]<size_t kCount>(size_t i) __attribute__((always_inline)) {
      constexpr __mmask8 kThere = (1u << kCount) - 1;
      const uint8_t* at[kRows];
#pragma GCC unroll 4
      for (size_t r = 0; r < kRows; ++r) at[r] = packed[r] + (begin + i) * kGroupBytes;
      const __m128i start = _mm_maskz_loadu_epi32(kThere, x.sums + begin + i);
      const __m512 totals = _mm512_cvtepi32_ps(
          _mm512_add_epi32(sums_of_groups<kBits, kCount>(at, x.codes + (begin + i) * kQ8Group),
                           _mm512_permutexvar_epi32(quarter, _mm512_castsi128_si512(start))));
      const float* factor = factors[0] + i;
      sums = _mm_fmadd_ps(_mm512_castps512_ps128(totals), _mm_load_ps(factor), sums);
      if constexpr (kCount > 1)
        sums = _mm_fmadd_ps(_mm512_extractf32x4_ps(totals, 1), _mm_load_ps(factor + kLanes), sums);
      if constexpr (kCount > 2)
        sums = _mm_fmadd_ps(_mm512_extractf32x4_ps(totals, 2), _mm_load_ps(factor + 2 * kLanes), sums);
      if constexpr (kCount > 3)
        sums = _mm_fmadd_ps(_mm512_extractf32x4_ps(totals, 3), _mm_load_ps(factor + 3 * kLanes), sums);
    };
    size_t i = 0;
    for (; i + kGroups <= count; i += kGroups) add.template operator()<kGroups>(i);
    if (count - i == 3) add.template operator()<3>(i);
    if (count - i == 2) add.template operator()<2>(i);
    if (count - i == 1) add.template operator()<1>(i);
  }
  _mm_store_ps(totals, sums);
  for (size_t r = 0; r < rows; ++r) y[row(r)] = totals[r];
}

// Lane i = the scale of group g of row i % kRows, of scales [kRows, kGroups] in registers.
template <size_t kRows, size_t kGroups>
[[gnu::always_inline]] inline __m512 column(const __m512* scales, size_t g) {
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i row = _mm512_and_si512(lane, _mm512_set1_epi32(static_cast<int>(kRows - 1)));
  const __m512i index =
      _mm512_add_epi32(_mm512_mullo_epi32(row, _mm512_set1_epi32(static_cast<int>(kGroups))),
                       _mm512_set1_epi32(static_cast<int>(g)));
  if constexpr (kRows * kGroups <= kLanes) {
    return _mm512_permutexvar_ps(index, scales[0]);
  } else if constexpr (kRows * kGroups == 2 * kLanes) {
    return _mm512_permutex2var_ps(scales[0], index, scales[1]);
  } else {  // 4 registers: half of the rows in two of them
    return _mm512_mask_blend_ps(0xFF00, _mm512_permutex2var_ps(scales[0], index, scales[1]),
                                _mm512_permutex2var_ps(scales[2], index, scales[3]));
  }
}

// The rows [n_begin, n_end) of a matrix with few columns (kGroups groups in blocks of one) for M tokens, 1 or
// 2: 16 sums at a time.
template <unsigned kBits, size_t kGroups, size_t M>
[[maybe_unused]] inline void short_rows(const Q8Rows& x, const NBitsMatrix& w, const Init& init, float* y,
                                        size_t n_begin, size_t n_end) {
  constexpr size_t kGroupBytes = kQ8Group * kBits / 8, kRows = kLanes / M;
  constexpr size_t kRegisters = (kRows * kGroups + kLanes - 1) / kLanes;  // of the scales of kRows rows
  __m512 x_scales[kGroups];
  __m512i codes[M][kGroups], start[kGroups];
#pragma GCC unroll 4
  for (size_t g = 0; g < kGroups; ++g) {
    constexpr __mmask16 kSecond = M == 2 ? 0xFF00 : 0;
    const size_t last = (M - 1) * kGroups + g;
    x_scales[g] = _mm512_mask_blend_ps(kSecond, _mm512_set1_ps(x.scales[g]), _mm512_set1_ps(x.scales[last]));
    start[g] =
        _mm512_mask_blend_epi32(kSecond, _mm512_set1_epi32(x.sums[g]), _mm512_set1_epi32(x.sums[last]));
#pragma GCC unroll 2
    for (size_t t = 0; t < M; ++t) codes[t][g] = _mm512_loadu_si512(x.codes + (t * kGroups + g) * kQ8Group);
  }
  for (size_t n = n_begin; n < n_end; n += kRows) {
    const size_t rows = smaller(kRows, n_end - n);
    const __mmask16 there = first_lanes(rows);
    __m512 scales[kRegisters];
#pragma GCC unroll 4
    for (size_t i = 0; i < kRegisters; ++i) {
      const size_t first = i * kLanes, all = rows * kGroups;
      scales[i] = scales_at(w, n * kGroups + first, all > first ? first_lanes(all - first) : 0);
    }
    const auto start_of = [&](size_t t) __attribute__((always_inline)) {
      if (init.beta != nullptr)
        return _mm512_mul_ps(_mm512_maskz_loadu_ps(there, y + t * w.rows + n), _mm512_set1_ps(init.beta[t]));
      return init.bias ? _mm512_maskz_loadu_ps(there, init.bias + n) : _mm512_setzero_ps();
    };
    __m512 sums = start_of(0);
    if constexpr (M == 2) sums = _mm512_shuffle_f32x4(sums, start_of(1), 0x44);
#pragma GCC unroll 4
    for (size_t g = 0; g < kGroups; ++g) {
      __m512i products[kLanes];
#pragma GCC unroll 16
      for (size_t r = 0; r < kRows; ++r) {
        const uint8_t* packed = w.packed + ((n + smaller(r, rows - 1)) * kGroups + g) * kGroupBytes;
        fetch(packed + kStreams * kAhead);  // in one place
        const __m512i weights = group_codes<kBits>(packed);
#pragma GCC unroll 2
        for (size_t t = 0; t < M; ++t)
          products[t * kRows + r] = _mm512_dpbusd_epi32(_mm512_setzero_si512(), weights, codes[t][g]);
      }
      const __m512 totals = _mm512_cvtepi32_ps(_mm512_add_epi32(sums_of(products), start[g]));
      sums = _mm512_fmadd_ps(totals, _mm512_mul_ps(column<kRows, kGroups>(scales, g), x_scales[g]), sums);
    }
    _mm512_mask_storeu_ps(y + n, there, sums);
    if constexpr (M == 2)
      _mm512_mask_storeu_ps(y + w.rows + n, there, _mm512_shuffle_f32x4(sums, sums, 0xEE));  // lanes 8 to 15
  }
}

// Rows of each stream, `most` or a few fewer, so that the streams lie a quarter of a page apart and do not
// come to a page's end at the same time.
[[maybe_unused]] inline size_t stream_rows(size_t most, size_t row_bytes) {
  constexpr size_t kPage = 4096, kQuarter = kPage / 4, kTries = 8;
  if (most < 2 * kTries) return most;
  for (size_t rows = most; rows > most - kTries; --rows) {
    const size_t apart = rows * row_bytes % kPage;
    if (apart == kQuarter || apart == 3 * kQuarter) return rows;
  }
  return most;
}

// Four rows after the other, for one token after the other: the first one reads them, the others find them in
// the cache.
template <unsigned kBits>
[[maybe_unused]] inline void product_of_few(const Q8Rows& x, const NBitsMatrix& w, const Init& init, float* y,
                                            size_t T, size_t n_begin, size_t n_end) {
  const size_t groups = w.cols / kQ8Group;
  const auto from = [&](size_t t) {
    return Q8Rows{x.codes + t * w.cols, x.scales + t * groups, x.sums + t * groups};
  };
  const auto short_ones = [&]<size_t kGroups>() {
    size_t t = 0;
    for (; t + 2 <= T; t += 2)
      short_rows<kBits, kGroups, 2>(from(t), w, init.from_token(t), y + t * w.rows, n_begin, n_end);
    if (t < T) short_rows<kBits, kGroups, 1>(from(t), w, init.from_token(t), y + t * w.rows, n_begin, n_end);
  };
  if (w.block == kQ8Group && groups == 1) return short_ones.template operator()<1>();
  if (w.block == kQ8Group && groups == 2) return short_ones.template operator()<2>();
  if (w.block == kQ8Group && groups == 4) return short_ones.template operator()<4>();
  const auto rows = [&](size_t n, size_t step, size_t count) {
    for (size_t t = 0; t < T; ++t)
      rows_by_token<kBits>(from(t), w, init.from_token(t), y + t * w.rows, n, step, count);
  };
  const size_t step = stream_rows((n_end - n_begin) / kStreams, w.cols * kBits / 8);
  for (size_t n = n_begin; n < n_begin + step; ++n) rows(n, step, kStreams);
  for (size_t n = n_begin + kStreams * step; n < n_end; n += kStreams)
    rows(n, 1, smaller(kStreams, n_end - n));
}

// --- A block of tokens

// 32 rows of up to 8 groups. codes[g][j][half], lane r: the codes 4j..4j+3 of group g of row 16 half + r,
// less the zero point if `kSigned`.
struct Tile {
  alignas(64) __m512i codes[kTileGroups][kLanes][2];
  alignas(64) __m512 scales[kTileGroups][2];
};

// The codes of the rows [n, n + rows) in `count` groups from `group` on; lanes past `rows` repeat the last
// row.
template <unsigned kBits, bool kSigned>
[[maybe_unused]] inline void unpack_codes(const NBitsMatrix& w, size_t n, size_t rows, size_t group,
                                          size_t count, __m512i (*codes)[kLanes][2]) {
  constexpr size_t kGroupBytes = kQ8Group * kBits / 8;
  const size_t row_bytes = w.cols / kQ8Group * kGroupBytes;
  __m512i m[kLanes];
  for (size_t half = 0; half < 2; ++half) {
    for (size_t g = 0; g < count; ++g) {
#pragma GCC unroll 16
      for (size_t r = 0; r < kLanes; ++r) {
        const size_t row = n + smaller(half * kLanes + r, rows - 1);
        const uint8_t* packed = w.packed + row * row_bytes + (group + g) * kGroupBytes;
        _mm_prefetch(reinterpret_cast<const char*>(packed + kTileRows * row_bytes),
                     _MM_HINT_T1);  // for the tile below
        m[r] = group_codes<kBits>(packed);
        if constexpr (kSigned) m[r] = _mm512_sub_epi8(m[r], _mm512_set1_epi8(kBits == 8 ? -128 : 8));
      }
      transpose(m);
#pragma GCC unroll 16
      for (size_t j = 0; j < kLanes; ++j) codes[g][j][half] = m[j];
    }
  }
}

template <unsigned kBits, bool kSigned>
[[maybe_unused]] inline void unpack(const NBitsMatrix& w, size_t n, size_t rows, size_t group, size_t count,
                                    Tile& tile) {
  unpack_codes<kBits, kSigned>(w, n, rows, group, count, tile.codes);
  __m512i m[kLanes];
  for (size_t half = 0; half < 2; ++half) {
#pragma GCC unroll 16
    for (size_t r = 0; r < kLanes; ++r) {
      const size_t row = n + smaller(half * kLanes + r, rows - 1);
      m[r] = _mm512_castps_si512(group_scales(w, row, group, count));
    }
    transpose(m);
    for (size_t g = 0; g < count; ++g) tile.scales[g][half] = _mm512_castsi512_ps(m[g]);
  }
}

// Rows of y that a tile's product goes to: [T, N] from the tile's first row on.
struct Target {
  float* y;
  size_t N;
  __mmask16 rows[2];  // the rows of the tile that exist
  __m512 bias[2];
  const float* beta;
  bool first;  // y starts from bias or beta; else it has the products of earlier columns

  __m512 start(size_t t, size_t half) const {
    if (first && beta == nullptr) return bias[half];
    const __m512 before = _mm512_maskz_loadu_ps(rows[half], y + t * N + half * kLanes);
    return first ? _mm512_mul_ps(before, _mm512_set1_ps(beta[t])) : before;
  }
  void store(size_t t, size_t half, __m512 sums) const {
    _mm512_mask_storeu_ps(y + t * N + half * kLanes, rows[half], sums);
  }
};

// The products of all rows, tile by tile. unpack(n, rows, group, count, tile) fills a tile; multiply(tile,
// group, count, to) adds its product with all tokens to `to`.
template <typename AnyTile, typename Unpack, typename Multiply>
[[gnu::always_inline]] inline void by_tiles(const NBitsMatrix& w, const Init& init, float* y, size_t n_begin,
                                            size_t n_end, const Unpack& unpack, const Multiply& multiply) {
  const size_t groups = w.cols / kQ8Group;
  AnyTile tile;
  for (size_t n = n_begin; n < n_end; n += kTileRows) {
    const size_t rows = smaller(kTileRows, n_end - n);
    Target to{y + n, w.rows,    {first_lanes(rows), first_lanes(rows < kLanes ? 0 : rows - kLanes)},
              {},    init.beta, true};
    for (size_t half = 0; half < 2; ++half)
      to.bias[half] = init.bias ? _mm512_maskz_loadu_ps(to.rows[half], init.bias + n + half * kLanes)
                                : _mm512_setzero_ps();
    for (size_t g = 0; g < groups; g += kTileGroups) {
      const size_t count = smaller(kTileGroups, groups - g);
      unpack(n, rows, g, count, tile);
      to.first = g == 0;
      multiply(tile, g, count, to);
    }
  }
}

// Calls tokens.operator()<M>(t) for all T tokens, six at a time as long as there are: of a tile 12 products
// stay in registers.
template <typename Tokens>
[[gnu::always_inline]] inline void by_tokens(size_t T, const Tokens& tokens) {
  size_t t = 0;
  for (; t + 6 <= T; t += 6) tokens.template operator()<6>(t);
  if (T - t >= 4) {
    tokens.template operator()<4>(t);
    t += 4;
  }
  if (T - t >= 2) {
    tokens.template operator()<2>(t);
    t += 2;
  }
  if (T - t >= 1) tokens.template operator()<1>(t);
}

// `Block`: kSigned, as for unpack(); multiply(tile, x, T, K, group, count, to) adds the tile's product with
// all T tokens to `to`.
template <typename Block, unsigned kBits>
inline void product_of_block(const Q8Rows& x, const NBitsMatrix& w, const Init& init, float* y, size_t T,
                             size_t n_begin, size_t n_end) {
  by_tiles<Tile>(
      w, init, y, n_begin, n_end,
      [&](size_t n, size_t rows, size_t group, size_t count, Tile& tile) {
        unpack<kBits, Block::kSigned>(w, n, rows, group, count, tile);
      },
      [&](const Tile& tile, size_t group, size_t count, const Target& to) {
        Block::multiply(tile, x, T, w.cols, group, count, to);
      });
}

template <typename Block>
inline void product_of_many(const Q8Rows& x, const NBitsMatrix& w, const Init& init, float* y, size_t T,
                            size_t n_begin, size_t n_end) {
  (w.bits == 4 ? product_of_block<Block, 4> : product_of_block<Block, 8>)(x, w, init, y, T, n_begin, n_end);
}

}  // namespace
}  // namespace allmem::avx512vnni
