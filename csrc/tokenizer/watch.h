// Lets a long call be ended from outside: whoever works says how much was done, and somebody is asked now and
// then. And bounds what regular expressions may take, since some need as long as one likes.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <utility>

#include "platform/error.h"

namespace allmem {

class Watch {
 public:
  // What a look into a table weighs, in bytes passed over.
  static constexpr size_t kLookup = 64;

  // `go_on` may be empty.
  explicit Watch(std::function<bool()> go_on = {}) : go_on_(std::move(go_on)) {}

  // `work`: bytes passed over, some nanoseconds each at most. Throws Error (kCancelled) when `go_on` says so.
  void did(size_t work) {
    done_ += work;
    if (done_ < kAskEvery) return;
    done_ = 0;
    if (go_on_ && !go_on_())
      throw Error(ErrorCode::kCancelled, "Turning a text into tokens was cancelled; nothing was read.");
  }

  // The steps are for a text of so many bytes, all of it. A run of white space takes some for each byte.
  void allow_steps_for(size_t size) { steps_left_ = kStepsPerByte * (uint64_t{size} + kShort); }
  // False when there are not as many left.
  bool take_steps(uint64_t count) {
    if (count > steps_left_) return false;
    steps_left_ -= count;
    did(static_cast<size_t>(std::min<uint64_t>(count, kAskEvery)) * kStep);
    return true;
  }

 private:
  static constexpr uint64_t kStepsPerByte = 512, kShort = 64;
  static constexpr size_t kStep = 16;                   // what a step weighs
  static constexpr size_t kAskEvery = size_t{1} << 20;  // some milliseconds

  std::function<bool()> go_on_;
  size_t done_ = 0;
  uint64_t steps_left_ = kStepsPerByte * kShort;
};

}  // namespace allmem
