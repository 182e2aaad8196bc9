// Linear layers with 8-bit activations, AMX: one instruction multiplies 16 tokens by 16 rows over a group's
// 64 columns. Its 256 sums then pass through memory, where 16 vector registers convert, scale and add them.
#include "kernels/x86/amxint8.h"
#include "kernels/x86/linear_q8_zmm.h"

namespace allmem::amxint8 {

namespace {

using namespace avx512vnni;  // NOLINT: the shared helpers, which have internal linkage

constexpr size_t kTokens = 16, kTileBytes = 64;  // rows of a tile register, and bytes of each

// What LDTILECFG reads.
struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t columns[16] = {kTileBytes, kTileBytes, kTileBytes, kTileBytes, kTileBytes};
  uint8_t rows[16] = {kTokens, kTokens, kTokens, kTokens, kTokens};
};

// The tile registers are set up for the time of a call, so that the thread's owner finds none in use.
struct Tiles {
  Tiles() {
    const TileConfig config;
    __asm__ volatile("" : : "r"(&config) : "memory");
    _tile_loadconfig(&config);
  }
  ~Tiles() { _tile_release(); }
};

// The intrinsics do not tell the compiler which memory they read.
void finish_stores(const void* memory) { __asm__ volatile("" : : "r"(memory) : "memory"); }

// 16 tokens in the columns of a tile.
struct Tokens {
  size_t first, count;  // the rows of the result; those past `count` are not stored
  const int8_t* codes;  // [16, ...], `stride` bytes apart
  size_t stride;
  alignas(64) float scales[kTokens][kTileGroups];
};

// The product of half a tile of weights with 16 tokens.
void multiply_half(const Tile& tile, size_t half, const Tokens& tokens, size_t count, const Target& to) {
  // All products before the first sum: a load waits until the tile's store before it has left the core.
  alignas(64) int32_t products[kTileGroups][kTokens][kLanes];
  for (size_t g = 0; g < count; ++g) {
    _tile_loadd(0, tokens.codes + g * kQ8Group, tokens.stride);
    _tile_loadd(1, &tile.codes[g][0][half], 2 * kTileBytes);
    if (g % 2 == 0) {
      _tile_zero(2);
      _tile_dpbssd(2, 0, 1);
      _tile_stored(2, products[g], kTileBytes);
    } else {
      _tile_zero(3);
      _tile_dpbssd(3, 0, 1);
      _tile_stored(3, products[g], kTileBytes);
    }
  }
  finish_stores(products);
  __m512 sums[kTokens];
#pragma GCC unroll 16
  for (size_t i = 0; i < kTokens; ++i)
    sums[i] = i < tokens.count ? to.start(tokens.first + i, half) : _mm512_setzero_ps();
  for (size_t g = 0; g < count; ++g) {
    const __m512 w_scales = tile.scales[g][half];
#pragma GCC unroll 16
    for (size_t i = 0; i < kTokens; ++i) {
      const __m512 scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_load_si512(products[g][i])),
                                          _mm512_set1_ps(tokens.scales[i][g]));
      sums[i] = _mm512_fmadd_ps(scaled, w_scales, sums[i]);
    }
  }
#pragma GCC unroll 16
  for (size_t i = 0; i < kTokens; ++i)
    if (i < tokens.count) to.store(tokens.first + i, half, sums[i]);
}

struct Amx {
  static constexpr bool kSigned = true;

  static void multiply(const Tile& tile, const Q8Rows& x, size_t T, size_t K, size_t group, size_t count,
                       const Target& to) {
    const size_t groups = K / kQ8Group;
    alignas(64) int8_t last_codes[kTokens][kTileGroups * kQ8Group];
    for (size_t t = 0; t < T; t += kTokens) {
      Tokens tokens;
      tokens.first = t;
      tokens.count = smaller(kTokens, T - t);
      tokens.codes = x.codes + t * K + group * kQ8Group;
      tokens.stride = K;
      for (size_t i = 0; i < tokens.count; ++i)
        _mm256_store_ps(tokens.scales[i], _mm256_maskz_loadu_ps(static_cast<__mmask8>(first_lanes(count)),
                                                                x.scales + (t + i) * groups + group));
      if (tokens.count < kTokens) {  // filled up with tokens of zeros: a tile register reads whole rows
        __builtin_memset(last_codes, 0, sizeof last_codes);
        for (size_t i = 0; i < tokens.count; ++i)
          __builtin_memcpy(last_codes[i], tokens.codes + i * K, count * kQ8Group);
        tokens.codes = last_codes[0];
        tokens.stride = sizeof last_codes[0];
      }
      finish_stores(&tile);
      finish_stores(last_codes);
      for (size_t half = 0; half < 2 && to.rows[half] != 0; ++half)
        multiply_half(tile, half, tokens, count, to);
    }
  }
};

}  // namespace

void linear_q8(const Q8Rows& x, const NBitsMatrix& w, const float* bias, float* y, size_t T, size_t n_begin,
               size_t n_end) {
  const Tiles tiles;
  product<Amx>(x, w, bias, y, T, n_begin, n_end);
}

}  // namespace allmem::amxint8
