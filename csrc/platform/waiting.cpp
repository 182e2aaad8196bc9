// The standard library's.
#include "platform/waiting.h"

namespace allmem {

void wait_for_change(const std::atomic<uint32_t>& value, uint32_t old) {
  value.wait(old, std::memory_order_acquire);
}
void wait_for_change(const std::atomic<uint64_t>& value, uint64_t old) {
  value.wait(old, std::memory_order_acquire);
}

void wake_all(std::atomic<uint32_t>& value) { value.notify_all(); }
void wake_all(std::atomic<uint64_t>& value) { value.notify_all(); }

}  // namespace allmem
