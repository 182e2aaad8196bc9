// What the files for Windows share: a handle that closes itself, and the system's reasons as text.
#pragma once

#define WIN32_LEAN_AND_MEAN
#define NOMINMAX 1
#include <windows.h>

#include <string>
#include <system_error>
#include <utility>

namespace allmem {

class WindowsHandle {
 public:
  // What CreateFileW() and CreateFileMappingW() return; the one fails with INVALID_HANDLE_VALUE, the other
  // with NULL.
  explicit WindowsHandle(HANDLE value) : value_(value == INVALID_HANDLE_VALUE ? nullptr : value) {}
  ~WindowsHandle() { close(); }
  WindowsHandle(WindowsHandle&& other) noexcept : value_(std::exchange(other.value_, nullptr)) {}
  WindowsHandle& operator=(WindowsHandle&& other) noexcept {
    std::swap(value_, other.value_);
    return *this;
  }
  WindowsHandle(const WindowsHandle&) = delete;
  WindowsHandle& operator=(const WindowsHandle&) = delete;

  explicit operator bool() const { return value_ != nullptr; }
  HANDLE get() const { return value_; }
  // False when the system says that something went wrong.
  bool close() { return value_ == nullptr || ::CloseHandle(std::exchange(value_, nullptr)) != 0; }

 private:
  HANDLE value_;
};

// The sentence without its end: it becomes part of another one.
inline std::string windows_reason(DWORD error) {
  std::string text = std::system_category().message(static_cast<int>(error));
  text.erase(text.find_last_not_of(" .\r\n") + 1);
  return text;
}

}  // namespace allmem
