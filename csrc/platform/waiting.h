// Sleeping until another thread changes a number and says so: std::atomic's wait() and notify, where they are
// sound.
#pragma once

#include <atomic>
#include <cstdint>

namespace allmem {

// Returns once `value` is not `old`, or now and then for no reason.
void wait_for_change(const std::atomic<uint32_t>& value, uint32_t old);
void wait_for_change(const std::atomic<uint64_t>& value, uint64_t old);

void wake_all(std::atomic<uint32_t>& value);
void wake_all(std::atomic<uint64_t>& value);

}  // namespace allmem
