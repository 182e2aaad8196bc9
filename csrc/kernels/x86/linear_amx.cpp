// Linear layers with 8-bit activations, AMX: one instruction multiplies 16 tokens by 16 rows over a group's
// 64 columns. Its 256 sums then pass through memory, where 16 vector registers convert, scale and add them.
#include "kernels/x86/amx.h"
#include "kernels/x86/amx_tiles.h"
#include "kernels/x86/avx512vnni.h"
#include "kernels/x86/linear_q8_zmm.h"

namespace allmem::amx {

namespace {

using namespace avx512vnni;  // NOLINT: the shared helpers, which have internal linkage

constexpr size_t kTokens = kTileRegisterRows;

// Multiplies a tile of weights with all tokens. One product is of half a tile, a group and 16 tokens;
// products are started kAheadProducts before their sums are needed, as they first have to get through memory:
// a load waits until the tile's store before it has left the core.
class TileProduct {
 public:
  TileProduct(const Tile& tile, const Q8Rows& x, size_t T, size_t K, size_t group, size_t count,
              size_t halves)
      : tile_(tile), x_(x), T_(T), K_(K), group_(group), count_(count), halves_(halves) {
    for (size_t i = 0; i < kAheadProducts; ++i) start_next();
  }

  // The sums of the next product, in the order in which they are started.
  const int32_t (*next())[kLanes] { return products_[taken_++ % kBuffers]; }

  void start_next() {
    if (t_ >= T_) return;
    if (g_ == 0 && half_ == 0) select_tokens();
    int32_t(*products)[kLanes] = products_[started_ % kBuffers];
    if (started_++ % 2 == 0) {
      _tile_loadd(0, codes_ + g_ * kQ8Group, stride_);
      _tile_loadd(1, &tile_.codes[g_][0][half_], 2 * kTileBytes);
      _tile_zero(2);
      _tile_dpbssd(2, 0, 1);
      _tile_stored(2, products, kTileBytes);
    } else {
      _tile_loadd(3, codes_ + g_ * kQ8Group, stride_);
      _tile_loadd(4, &tile_.codes[g_][0][half_], 2 * kTileBytes);
      _tile_zero(5);
      _tile_dpbssd(5, 3, 4);
      _tile_stored(5, products, kTileBytes);
    }
    finish_stores(products);
    if (++g_ < count_) return;
    g_ = 0;
    if (++half_ < halves_) return;
    half_ = 0;
    t_ += kTokens;
  }

 private:
  static constexpr size_t kAheadProducts = 3, kBuffers = 4;

  // The tokens from t_ on, filled up with zeros: a tile register reads whole rows.
  void select_tokens() {
    codes_ = x_.codes + t_ * K_ + group_ * kQ8Group;
    stride_ = K_;
    if (T_ - t_ >= kTokens) return;
    __builtin_memset(last_codes_, 0, sizeof last_codes_);
    for (size_t i = 0; i < T_ - t_; ++i) __builtin_memcpy(last_codes_[i], codes_ + i * K_, count_ * kQ8Group);
    finish_stores(last_codes_);
    codes_ = last_codes_[0];
    stride_ = sizeof last_codes_[0];
  }

  const Tile& tile_;
  const Q8Rows& x_;
  const size_t T_, K_, group_, count_, halves_;
  size_t t_ = 0, half_ = 0, g_ = 0;  // the product that is started next
  size_t started_ = 0, taken_ = 0;
  const int8_t* codes_ = nullptr;
  size_t stride_ = 0;
  alignas(64) int32_t products_[kBuffers][kTokens][kLanes];
  alignas(64) int8_t last_codes_[kTokens][kTileGroups * kQ8Group];
};

struct Amx {
  static constexpr bool kSigned = true;

  static void multiply(const Tile& tile, const Q8Rows& x, size_t T, size_t K, size_t group, size_t count,
                       const Target& to) {
    const size_t groups = K / kQ8Group, halves = to.rows[1] == 0 ? 1 : 2;
    finish_stores(&tile);
    TileProduct product(tile, x, T, K, group, count, halves);
    alignas(64) float scales[kTokens][kTileGroups] = {};
    for (size_t t = 0; t < T; t += kTokens) {
      const size_t tokens = smaller(kTokens, T - t);
      for (size_t i = 0; i < tokens; ++i)
        _mm256_store_ps(scales[i], _mm256_maskz_loadu_ps(static_cast<__mmask8>(first_lanes(count)),
                                                         x.scales + (t + i) * groups + group));
      for (size_t half = 0; half < halves; ++half) {
        __m512 sums[kTokens];
#pragma GCC unroll 16
        for (size_t i = 0; i < kTokens; ++i)
          sums[i] = i < tokens ? to.start(t + i, half) : _mm512_setzero_ps();
        for (size_t g = 0; g < count; ++g) {
          product.start_next();
          const int32_t(*products)[kLanes] = product.next();
          const __m512 w_scales = tile.scales[g][half];
#pragma GCC unroll 16
          for (size_t i = 0; i < kTokens; ++i) {
            const __m512 factor = _mm512_mul_ps(w_scales, _mm512_set1_ps(scales[i][g]));
            sums[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_load_si512(products[i])), factor, sums[i]);
          }
        }
#pragma GCC unroll 16
        for (size_t i = 0; i < kTokens; ++i)
          if (i < tokens) to.store(t + i, half, sums[i]);
      }
    }
  }
};

}  // namespace

void linear_q8(const Q8Rows& x, const NBitsMatrix& w, const Init& init, float* y, size_t T, size_t n_begin,
               size_t n_end) {
  if (T < kFewTokens) return avx512vnni::linear_q8(x, w, init, y, T, n_begin, n_end);
  const Tiles tiles;
  product_of_many<Amx>(x, w, init, y, T, n_begin, n_end);
}

}  // namespace allmem::amx
