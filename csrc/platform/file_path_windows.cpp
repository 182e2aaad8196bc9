// Windows: a name is UTF-16. What the standard library makes of narrow strings depends on the library and on
// the user's code page, so the conversion is done here.
#include <algorithm>

#include "platform/error.h"
#include "platform/file_path.h"
#include "platform/printable.h"
#include "platform/windows_handle.h"

namespace allmem {

std::filesystem::path to_path(std::string_view name) {
  if (name.empty()) return {};
  constexpr size_t kLongest = 1 << 17;  // Windows allows 32,767 units, of at most 3 bytes each
  const int size = static_cast<int>(std::min(name.size(), kLongest));
  const int length = ::MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, name.data(), size, nullptr, 0);
  if (name.size() > kLongest || length == 0) {
    throw Error(ErrorCode::kInvalidArgument,
                printable("'" + std::string(name) + "' is not the name of a file: it is " +
                          (name.size() > kLongest ? "too long" : "not UTF-8") + "."));
  }
  std::wstring wide(static_cast<size_t>(length), L'\0');
  ::MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, name.data(), size, wide.data(), length);
  return wide;
}

std::string to_name(const std::filesystem::path& path) {
  const std::wstring& wide = path.native();
  const int size = static_cast<int>(wide.size());
  const int length = ::WideCharToMultiByte(CP_UTF8, 0, wide.data(), size, nullptr, 0, nullptr, nullptr);
  std::string name(static_cast<size_t>(length), '\0');
  ::WideCharToMultiByte(CP_UTF8, 0, wide.data(), size, name.data(), length, nullptr, nullptr);
  return name;
}

// Not std::filesystem::canonical(): libstdc++ knows no links on Windows and would leave them as they are.
std::filesystem::path real_path(const std::filesystem::path& path, std::error_code& error) {
  const WindowsHandle file(::CreateFileW(path.c_str(), 0,
                                         FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, nullptr,
                                         OPEN_EXISTING, FILE_FLAG_BACKUP_SEMANTICS, nullptr));
  std::wstring real(1 << 15, L'\0');  // the longest that Windows knows
  const DWORD room = static_cast<DWORD>(real.size());
  const DWORD length =
      file ? ::GetFinalPathNameByHandleW(file.get(), real.data(), room, FILE_NAME_NORMALIZED) : 0;
  if (length == 0 || length >= room) {
    error.assign(static_cast<int>(length == 0 ? ::GetLastError() : ERROR_FILENAME_EXCED_RANGE),
                 std::system_category());
    return {};
  }
  error.clear();
  real.resize(length);
  // \\?\C:\folder is how the system says C:\folder; names on other machines (\\?\UNC\...) stay as they are.
  if (real.starts_with(L"\\\\?\\") && real.size() > 5 && real[5] == L':') real.erase(0, 4);
  return real;
}

}  // namespace allmem
