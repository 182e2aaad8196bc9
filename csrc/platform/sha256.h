// SHA-256, as FIPS 180-4 defines it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace allmem {

std::array<uint8_t, 32> sha256(std::span<const std::byte> bytes);

}  // namespace allmem
