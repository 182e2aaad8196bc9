// Windows: the system's own; with libstdc++'s the thread pool's tests hung there.
#include "platform/waiting.h"
#include "platform/windows_handle.h"

namespace allmem {

namespace {

// The system compares the memory itself, under its own lock; it wants to be told of it without `const`.
template <class T>
void wait(const std::atomic<T>& value, T old) {
  static_assert(sizeof(value) == sizeof(T) && std::atomic<T>::is_always_lock_free);
  ::WaitOnAddress(const_cast<std::atomic<T>*>(&value), &old, sizeof old, INFINITE);
}

}  // namespace

void wait_for_change(const std::atomic<uint32_t>& value, uint32_t old) { wait(value, old); }
void wait_for_change(const std::atomic<uint64_t>& value, uint64_t old) { wait(value, old); }

void wake_all(std::atomic<uint32_t>& value) { ::WakeByAddressAll(&value); }
void wake_all(std::atomic<uint64_t>& value) { ::WakeByAddressAll(&value); }

}  // namespace allmem
