// A state without its zeros: comes back as it was, whatever lay there before, and no bytes lead beyond it.
#include "runtime/packed_state.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <random>

#include "platform/error.h"

using namespace allmem;

namespace {

std::vector<std::byte> packed(const PackedState& state) {
  std::vector<std::byte> bytes;
  state.each_piece([&](std::span<const std::byte> piece) {
    CHECK(bytes.size() % PackedState::kPiece == 0);  // all before this one were whole
    CHECK(piece.size() <= PackedState::kPiece);
    bytes.insert(bytes.end(), piece.begin(), piece.end());
  });
  CHECK(bytes.size() == state.bytes());
  return bytes;
}

void read(PackedReader& reader, std::span<const std::byte> bytes, size_t at_once) {
  for (; !bytes.empty(); bytes = bytes.subspan(std::min(at_once, bytes.size())))
    reader.take(bytes.first(std::min(at_once, bytes.size())));
  reader.finish();
}

// As what checks and what fills sees it.
void refused(std::span<const std::byte> bytes, size_t state_bytes) {
  const auto bad = [&](PackedReader& reader) {
    try {
      read(reader, bytes, 4096);
      FAIL("was accepted");
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::kBadSnapshot);
    }
  };
  PackedReader check(uint64_t{state_bytes});
  bad(check);
  std::vector<std::byte> room(state_bytes + 64, std::byte{7});
  PackedReader fill(std::span<std::byte>(room).first(state_bytes));
  bad(fill);
  CHECK(std::ranges::count(std::span(room).subspan(state_bytes), std::byte{7}) == 64);
}

std::vector<std::byte> with_map(std::vector<uint64_t> map, size_t block_bytes) {
  std::vector<std::byte> bytes(map.size() * 8 + block_bytes, std::byte{1});
  std::memcpy(bytes.data(), map.data(), map.size() * 8);
  return bytes;
}

}  // namespace

TEST_CASE("any state comes back from its blocks, over whatever was there, however it is cut") {
  std::mt19937 random(1);
  for (const size_t blocks : {0, 1, 2, 63, 64, 65, 128, 300, 9000}) {
    for (const unsigned filled_of_8 : {0, 1, 7, 8}) {
      CAPTURE(blocks);
      CAPTURE(filled_of_8);
      std::vector<std::byte> state(blocks * kPackedBlock), back(state.size());
      size_t there = 0;
      for (size_t i = 0; i < blocks; ++i) {
        if (random() % 8 >= filled_of_8) continue;
        state[i * kPackedBlock + random() % kPackedBlock] = static_cast<std::byte>(1 + random() % 255);
        ++there;
      }
      for (std::byte& b : back) b = static_cast<std::byte>(random() % 3);
      const std::vector<std::byte> bytes = packed(PackedState(state));
      CHECK(bytes.size() == (blocks + 63) / 64 * 8 + there * kPackedBlock);
      for (const size_t at_once : {size_t{8}, size_t{24}, PackedState::kPiece}) {
        PackedReader check(uint64_t{state.size()});
        read(check, bytes, at_once);
        PackedReader fill(std::span<std::byte>{back});
        read(fill, bytes, at_once);
        CHECK(back == state);
      }
    }
  }
}

TEST_CASE("what cannot be a state is refused, and nothing is written beyond it") {
  constexpr uint64_t kAll = ~uint64_t{0};
  refused({}, 64);                                     // no map
  refused(with_map({1}, 0), 64);                       // no block
  refused(with_map({1}, 56), 64);                      // a part of one
  refused(with_map({1}, 72), 64);                      // more than one
  refused(with_map({0}, 64), 64);                      // one that the map does not know
  refused(with_map({3}, 128), 64);                     // beyond the end
  refused(with_map({kAll}, 64 * 64), 64);              // far beyond
  refused(with_map({kAll, 2}, 65 * 64), 65 * 64);      // the last word of several
  refused(with_map({kAll, kAll}, 128 * 64), 64 * 64);  // a word too many: it is taken for a block
  refused(with_map({0}, 0), 65 * 64);                  // a word too few
  refused(with_map({1, 0}, 60), 65 * 64);              // not in words
  CHECK_THROWS_AS(PackedReader(uint64_t{65}), Error);
  PackedReader good(uint64_t{65 * 64});
  read(good, with_map({kAll, 1}, 65 * 64), 4096);  // so it is those that were refused
}
