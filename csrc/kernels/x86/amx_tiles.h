// What the AMX kernels share: setting up the tile registers.
//
// Everything has internal linkage, so that no AMX code escapes the file that includes it.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace allmem::amx {
namespace {

constexpr size_t kTileRegisterRows = 16, kTileBytes = 64;  // rows of a tile register, and bytes of each

// What LDTILECFG reads: all eight registers whole.
struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t columns[16] = {kTileBytes, kTileBytes, kTileBytes, kTileBytes,
                          kTileBytes, kTileBytes, kTileBytes, kTileBytes};
  uint8_t rows[16] = {kTileRegisterRows, kTileRegisterRows, kTileRegisterRows, kTileRegisterRows,
                      kTileRegisterRows, kTileRegisterRows, kTileRegisterRows, kTileRegisterRows};
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

// The intrinsics do not tell the compiler which memory they read or write.
inline void finish_stores(const void* memory) { __asm__ volatile("" : : "r"(memory) : "memory"); }

}  // namespace
}  // namespace allmem::amx
