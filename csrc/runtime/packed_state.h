// A state without its blocks of zeros: what a snapshot holds of it. A map of bits, one for each kPackedBlock
// bytes of the state, lowest first, says which blocks are there; they follow in their order. A window that is
// not full, a memory that has learned nothing and the beginning of a chunk are mostly zeros.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "platform/thread_pool.h"

namespace allmem {

inline constexpr size_t kPackedBlock = 64;

// The writing. `state` has whole blocks, and must stay as it is meanwhile.
class PackedState {
 public:
  explicit PackedState(std::span<const std::byte> state);

  size_t bytes() const;
  // Calls use(piece) for all the bytes in order, in pieces of at most kPiece, of which each but the last has
  // so many.
  static constexpr size_t kPiece = size_t{1} << 18;
  void each_piece(FunctionRef<void(std::span<const std::byte>)> use) const;

 private:
  std::span<const std::byte> state_;
  std::vector<uint64_t> map_;
  size_t blocks_ = 0;  // that are there
};

// The reading, of bytes that may be anything: take() is given them in order, whole words of 8 bytes each
// time. Throws kBadSnapshot when they cannot be a state of `state_bytes`, before anything is written beyond.
class PackedReader {
 public:
  // Only checks.
  explicit PackedReader(uint64_t state_bytes);
  // Fills all of `into`.
  explicit PackedReader(std::span<std::byte> into);

  void take(std::span<const std::byte> bytes);
  void finish();  // after the last

 private:
  void take_map(uint64_t word);
  size_t next_block();

  bool fills_;
  std::span<std::byte> into_;
  uint64_t blocks_;              // of the state
  uint64_t words_left_;          // of the map
  uint64_t bytes_left_ = 0;      // of blocks that are there
  std::vector<uint64_t> map_;    // when it fills
  size_t block_ = 0, done_ = 0;  // the one being filled, and how much of it is
};

}  // namespace allmem
