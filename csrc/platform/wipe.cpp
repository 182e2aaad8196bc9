// Overwrites what lies below on this thread's stack, as far as it goes.
#include "platform/wipe.h"

#include <algorithm>
#include <cstdint>

#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#define NOMINMAX 1
#include <windows.h>
#else
#include <pthread.h>
#endif

namespace allmem {

namespace {

constexpr size_t kDeep = size_t{80} << 10;  // what calculations take at most
constexpr size_t kKept = size_t{8} << 10;   // for what is called from here, and signal handlers
constexpr size_t kUnknown = size_t{16} << 10;

// The lowest address of this thread's stack; 0 where the system does not say.
uintptr_t stack_end() {
#if defined(_WIN32)
  ULONG_PTR low = 0, high = 0;
  ::GetCurrentThreadStackLimits(&low, &high);
  return low;
#elif defined(__APPLE__)
  const auto top = reinterpret_cast<uintptr_t>(::pthread_get_stackaddr_np(::pthread_self()));
  return top - ::pthread_get_stacksize_np(::pthread_self());
#elif defined(__linux__)
  pthread_attr_t attributes;
  if (::pthread_getattr_np(::pthread_self(), &attributes) != 0) return 0;
  void* end = nullptr;
  size_t size = 0;
  const bool known = ::pthread_attr_getstack(&attributes, &end, &size) == 0;
  ::pthread_attr_destroy(&attributes);
  return known ? reinterpret_cast<uintptr_t>(end) : 0;
#else
  return 0;
#endif
}

}  // namespace

[[gnu::noinline]] void wipe_stack() {
  const uintptr_t end = stack_end(), here = reinterpret_cast<uintptr_t>(__builtin_frame_address(0));
  const size_t room = end == 0 || end > here ? kUnknown : static_cast<size_t>(here - end);
  if (room <= kKept) return;
  const size_t size = std::min(kDeep, room - kKept);
  wipe_memory({static_cast<std::byte*>(__builtin_alloca(size)), size});
}

}  // namespace allmem
