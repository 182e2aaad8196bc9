// Drafts from n-grams of what was read.
#include "runtime/draft.h"

#include <algorithm>
#include <bit>

namespace allmem {

namespace {

constexpr float kLearned = 1.0f / 32;  // of a chance, with each guess

}  // namespace

// Where the n-gram that ends with `next` is looked up; null as long as there are too few tokens.
uint32_t* NgramDrafts::entry(int32_t next) {
  if (read_ + 1 < kNgram) return nullptr;
  uint64_t hash = static_cast<uint32_t>(next);
  for (size_t back = 1; back < kNgram; ++back)
    hash = hash * 0x9E3779B97F4A7C15u + static_cast<uint32_t>(token(read_ - back));
  hash *= 0x9E3779B97F4A7C15u;
  return &follows_[hash >> (64 - std::countr_zero(kRemembered))];
}

// What is guessed once `next` is read: the run goes on, or begins where the same n-gram was.
NgramDrafts::Guess NgramDrafts::after(int32_t next) {
  if (is_there(guess_.at) && token(guess_.at) == next) return {guess_.at + 1, guess_.right + 1};
  const uint32_t* found = entry(next);
  if (found == nullptr) return {};
  const uint64_t at = read_ - static_cast<uint32_t>(static_cast<uint32_t>(read_) - *found);
  const bool same = [&] {
    if (at < kNgram || at > read_ || !is_there(at - kNgram) || token(at - 1) != next) return false;
    for (size_t back = 1; back < kNgram; ++back)
      if (token(at - 1 - back) != token(read_ - back)) return false;
    return true;
  }();
  return same ? Guess{at, 0} : Guess{};
}

float& NgramDrafts::chance(const Guess& guess) {
  return chances_[std::min<size_t>(static_cast<size_t>(std::bit_width(guess.right)), chances_.size() - 1)];
}

void NgramDrafts::read(std::span<const int32_t> ids) {
  if (tokens_.empty()) {
    tokens_.resize(kRemembered);
    follows_.resize(kRemembered);
  }
  for (const int32_t id : ids) {
    if (is_there(guess_.at)) {
      float& was = chance(guess_);
      was += ((token(guess_.at) == id ? 1.0f : 0.0f) - was) * kLearned;
    }
    const Guess next = after(id);
    uint32_t* const found = entry(id);
    tokens_[read_ % kRemembered] = id;
    ++read_;
    if (found != nullptr) *found = static_cast<uint32_t>(read_);
    guess_ = next;
  }
}

size_t NgramDrafts::draft(int32_t next, std::span<int32_t> room) {
  if (tokens_.empty()) return 0;
  Guess guess = after(next);
  if (guess.at == kNowhere) return 0;
  size_t count = 0;
  for (float all_right = chance(guess); count < room.size() && all_right >= kWorth;
       all_right *= chance(guess)) {
    // What was read, then `next`, then the draft itself: a text may repeat while it is written.
    const auto beyond = static_cast<size_t>(guess.at - std::min(guess.at, read_));
    if (guess.at < read_ && !is_there(guess.at)) break;
    room[count++] = guess.at < read_ ? token(guess.at) : beyond == 0 ? next : room[beyond - 1];
    ++guess.at;
    ++guess.right;
  }
  return count;
}

void NgramDrafts::forget() { *this = {}; }

}  // namespace allmem
