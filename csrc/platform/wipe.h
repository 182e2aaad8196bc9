// Overwriting what must not be found again.
#pragma once

#include <cstddef>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace allmem {

// Writes zeros that the compiler may not leave out, though nobody reads them.
inline void wipe_memory(std::span<std::byte> bytes) {
  if (bytes.empty()) return;
#if defined(__GNUC__)
  std::memset(bytes.data(), 0, bytes.size());
  __asm__ volatile("" : : "r"(bytes.data()) : "memory");  // as if this read them
#else
  volatile std::byte* data = bytes.data();
  for (size_t i = 0; i < bytes.size(); ++i) data[i] = std::byte{0};
#endif
}

// What calculations left on the stack of this thread: compilers put registers there, and matrix products have
// frames of up to 70 KiB. As much as there is, on a thread with a small one. To be called from about where
// they were.
void wipe_stack();

// Gives memory back overwritten, also what a container leaves behind when it grows.
template <class T>
struct WipingAllocator {
  using value_type = T;
  WipingAllocator() = default;
  template <class U>
  WipingAllocator(const WipingAllocator<U>&) {}  // NOLINT: allocators convert
  T* allocate(size_t count) { return std::allocator<T>().allocate(count); }
  void deallocate(T* block, size_t count) {
    wipe_memory({reinterpret_cast<std::byte*>(block), count * sizeof(T)});
    std::allocator<T>().deallocate(block, count);
  }
  bool operator==(const WipingAllocator&) const { return true; }
};

template <class T>
using WipedVector = std::vector<T, WipingAllocator<T>>;
// A short one lies within its owner, who is to be allocated so too.
using WipedString = std::basic_string<char, std::char_traits<char>, WipingAllocator<char>>;

}  // namespace allmem
