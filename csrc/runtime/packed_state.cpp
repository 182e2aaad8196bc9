// Leaving blocks of zeros out of a state, and putting them in again.
#include "runtime/packed_state.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "platform/wipe.h"
#include "platform/zeros.h"
#include "runtime/bytes.h"

namespace allmem {

namespace {

constexpr size_t kWord = sizeof(uint64_t), kBits = 64;  // of a word of the map

// A buffer that hands on the `size` bytes that it gets in pieces of kPiece, the last one of what is left.
class Pieces {
 public:
  Pieces(FunctionRef<void(std::span<const std::byte>)> use, size_t size)
      : use_(use), room_(std::min(size, PackedState::kPiece)) {}

  void add(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const size_t count = std::min(bytes.size(), room_.size() - filled_);
      std::memcpy(room_.data() + filled_, bytes.data(), count);
      filled_ += count;
      bytes = bytes.subspan(count);
      if (filled_ == room_.size()) flush();
    }
  }
  void flush() {
    if (filled_ > 0) use_(std::span(room_).first(filled_));
    filled_ = 0;
  }

 private:
  FunctionRef<void(std::span<const std::byte>)> use_;
  WipedVector<std::byte> room_;
  size_t filled_ = 0;
};

}  // namespace

PackedState::PackedState(std::span<const std::byte> state)
    : state_(state), map_((state.size() / kPackedBlock + kBits - 1) / kBits) {
  for (size_t block = 0; block < state.size() / kPackedBlock; ++block) {
    if (are_zeros(state.subspan(block * kPackedBlock, kPackedBlock))) continue;
    map_[block / kBits] |= uint64_t{1} << (block % kBits);
    ++blocks_;
  }
}

size_t PackedState::bytes() const { return map_.size() * kWord + blocks_ * kPackedBlock; }

void PackedState::each_piece(FunctionRef<void(std::span<const std::byte>)> use) const {
  Pieces pieces(use, bytes());
  pieces.add(std::as_bytes(std::span(map_)));
  for (size_t word = 0; word < map_.size(); ++word) {
    for (uint64_t bits = map_[word]; bits != 0; bits &= bits - 1) {
      const size_t block = word * kBits + static_cast<size_t>(std::countr_zero(bits));
      pieces.add(state_.subspan(block * kPackedBlock, kPackedBlock));
    }
  }
  pieces.flush();
}

PackedReader::PackedReader(uint64_t state_bytes)
    : fills_(false),
      blocks_(state_bytes / kPackedBlock),
      words_left_(blocks_ / kBits + (blocks_ % kBits != 0 ? 1 : 0)) {
  if (state_bytes % kPackedBlock != 0) refuse_snapshot("its state is not made of whole blocks");
}

PackedReader::PackedReader(std::span<std::byte> into) : PackedReader(uint64_t{into.size()}) {
  fills_ = true;
  into_ = into;
  map_.reserve(static_cast<size_t>(words_left_));
}

void PackedReader::take_map(uint64_t word) {
  --words_left_;
  if (words_left_ == 0 && blocks_ % kBits != 0 && word >> (blocks_ % kBits) != 0)
    refuse_snapshot("its state has more blocks than there is room for");
  bytes_left_ += static_cast<uint64_t>(std::popcount(word)) * kPackedBlock;
  if (fills_) map_.push_back(word);
}

// The first block from block_ on that is there; those before it are cleared. The end, if none is.
size_t PackedReader::next_block() {
  const size_t begin = block_, end = static_cast<size_t>(blocks_);
  size_t word = begin / kBits;
  uint64_t bits = begin < end ? map_[word] >> (begin % kBits) << (begin % kBits) : 0;
  while (bits == 0 && ++word < map_.size()) bits = map_[word];
  const size_t found = bits == 0 ? end : word * kBits + static_cast<size_t>(std::countr_zero(bits));
  make_zeros(into_.subspan(begin * kPackedBlock, (found - begin) * kPackedBlock));
  return found;
}

void PackedReader::take(std::span<const std::byte> bytes) {
  while (words_left_ > 0 && !bytes.empty()) {
    uint64_t word;
    if (bytes.size() < kWord) refuse_snapshot("its state ends too early");
    std::memcpy(&word, bytes.data(), kWord);
    take_map(word);
    bytes = bytes.subspan(kWord);
  }
  if (bytes.size() > bytes_left_) refuse_snapshot("its state is longer than the blocks in it");
  bytes_left_ -= bytes.size();
  if (!fills_) return;
  while (!bytes.empty()) {
    if (done_ == 0) block_ = next_block();
    const size_t count = std::min(bytes.size(), kPackedBlock - done_);
    std::memcpy(into_.data() + block_ * kPackedBlock + done_, bytes.data(), count);
    bytes = bytes.subspan(count);
    done_ += count;
    if (done_ < kPackedBlock) break;
    done_ = 0;
    ++block_;
  }
}

void PackedReader::finish() {
  if (words_left_ > 0 || bytes_left_ > 0) refuse_snapshot("its state ends too early");
  if (fills_) next_block();
}

}  // namespace allmem
