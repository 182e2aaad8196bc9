// Lets a long call be ended from outside: whoever works says how much was done, and somebody is asked now and
// then.
#pragma once

#include <cstddef>
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

 private:
  static constexpr size_t kAskEvery = size_t{1} << 20;  // some milliseconds

  std::function<bool()> go_on_;
  size_t done_ = 0;
};

}  // namespace allmem
