// One caller at a time, without waiting: who comes second is told so.
#pragma once

#include <atomic>

namespace allmem {

// Claims what `busy` stands for, for the scope of one call.
class Claim {
 public:
  explicit Claim(std::atomic<bool>& busy) : busy_(busy), held_(!busy.exchange(true)) {}
  ~Claim() {
    if (held_) busy_ = false;
  }
  Claim(const Claim&) = delete;
  Claim& operator=(const Claim&) = delete;
  bool held() const { return held_; }

 private:
  std::atomic<bool>& busy_;
  bool held_;
};

}  // namespace allmem
