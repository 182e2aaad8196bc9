// Drafts: what may follow in a text, so that the model reads several tokens at once and says which are right.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "platform/wipe.h"

namespace allmem {

// Whatever can guess how a text goes on. A wrong guess costs time and nothing else. A draft model would be
// one.
class DraftSource {
 public:
  virtual ~DraftSource() = default;
  // The session has read these.
  virtual void read(std::span<const int32_t> ids) = 0;
  // Writes what is likely to follow `next`, which in turn follows all that was read, and returns how many
  // tokens that is: none where a try would cost more than it is likely to save.
  virtual size_t draft(int32_t next, std::span<int32_t> room) = 0;
  // As new, with what was read overwritten.
  virtual void forget() = 0;
  virtual std::unique_ptr<DraftSource> clone() const = 0;
};

// Drafts from what the session has read or written (prompt lookup): where the last kNgram tokens have come
// before, what followed them then.
//
// A guess is made at every token, read at once or not, so that what a guess is worth is known before one is
// tried: how often it was right, for each length of the run of right guesses that it continues. A draft goes
// on while all of it is right with a probability of at least kWorth.
class NgramDrafts : public DraftSource {
 public:
  static constexpr size_t kNgram = 3;
  static constexpr size_t kRemembered = size_t{1} << 15;  // the last tokens
  // What a token more in a block costs, measured in blocks of one token (docs/performance.md).
  static constexpr float kWorth = 0.35f;
  // Models with fewer bytes of weights are not drafted: they stay in a cache, and their texts take
  // milliseconds.
  static constexpr size_t kCachedBytes = size_t{16} << 20;

  void read(std::span<const int32_t> ids) override;
  size_t draft(int32_t next, std::span<int32_t> room) override;
  void forget() override;
  std::unique_ptr<DraftSource> clone() const override { return std::make_unique<NgramDrafts>(*this); }

 private:
  static constexpr uint64_t kNowhere = ~uint64_t{0};
  // A guess: the token at `at`, after a run of `right` guesses that were.
  struct Guess {
    uint64_t at = kNowhere;
    size_t right = 0;
  };
  int32_t token(uint64_t position) const { return tokens_[position % kRemembered]; }
  bool is_there(uint64_t position) const { return position < read_ && read_ - position <= kRemembered; }
  uint32_t* entry(int32_t next);
  Guess after(int32_t next);
  float& chance(const Guess& guess);

  WipedVector<int32_t> tokens_;    // a ring; empty before the first
  WipedVector<uint32_t> follows_;  // by the hash of kNgram tokens: the low bits of the position after them
  uint64_t read_ = 0;
  Guess guess_;                                                    // of what is read next
  std::array<float, 5> chances_ = {0.4f, 0.5f, 0.7f, 0.8f, 0.9f};  // after 0, 1, 2.., 4.., 8.. right ones
};

}  // namespace allmem
