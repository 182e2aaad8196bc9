// Mapping files on Windows.
#include <utility>

#include "platform/error.h"
#include "platform/file_path.h"
#include "platform/mapped_file.h"
#include "platform/printable.h"
#include "platform/windows_handle.h"

namespace allmem {

namespace {

[[noreturn]] void fail(const std::string& path, DWORD error) {
  if (error == ERROR_FILE_NOT_FOUND || error == ERROR_PATH_NOT_FOUND || error == ERROR_INVALID_NAME ||
      error == ERROR_DIRECTORY) {
    throw Error(ErrorCode::kNotFound, printable("There is no file '" + path + "'."));
  }
  throw Error(ErrorCode::kIo,
              printable("The file '" + path + "' cannot be read: " + windows_reason(error) + "."));
}

}  // namespace

MappedFile::MappedFile(const std::string& path) : path_(path) {
  if (path.find('\0') != std::string::npos) fail(path, ERROR_INVALID_NAME);
  // FILE_FLAG_BACKUP_SEMANTICS: directories can be opened, so that they are refused as what they are.
  const WindowsHandle file(::CreateFileW(to_path(path).c_str(), GENERIC_READ,
                                         FILE_SHARE_READ | FILE_SHARE_DELETE, nullptr, OPEN_EXISTING,
                                         FILE_FLAG_BACKUP_SEMANTICS, nullptr));
  if (!file) fail(path, ::GetLastError());
  BY_HANDLE_FILE_INFORMATION info;
  if (::GetFileType(file.get()) != FILE_TYPE_DISK || ::GetFileInformationByHandle(file.get(), &info) == 0 ||
      (info.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY) != 0) {
    throw Error(ErrorCode::kIo, printable("'" + path + "' is not a regular file."));
  }
  const uint64_t size = uint64_t{info.nFileSizeHigh} << 32 | info.nFileSizeLow;
  if (!std::in_range<size_t>(size)) fail(path, ERROR_FILE_TOO_LARGE);
  size_ = static_cast<size_t>(size);
  if (size_ == 0) return;
  const WindowsHandle mapping(::CreateFileMappingW(file.get(), nullptr, PAGE_READONLY, 0, 0, nullptr));
  if (!mapping) fail(path, ::GetLastError());
  mapping_size_ = size_;
  mapping_ = ::MapViewOfFile(mapping.get(), FILE_MAP_READ, 0, 0, size_);
  if (mapping_ == nullptr) fail(path, ::GetLastError());
  data_ = static_cast<const std::byte*>(mapping_);
}

// A descriptor belongs to one C runtime, and on Windows a process may have several: the caller's 3 need not
// be ours, and to ask about one that is not open may end the process.
MappedFile::MappedFile(const std::string& name, int, uint64_t, size_t) {
  throw Error(ErrorCode::kUnsupported,
              printable("'" + name +
                        "' is an open file, which cannot be handed over on Windows; give its path, or "
                        "its bytes in memory."));
}

MappedFile::~MappedFile() {
  if (mapping_ != nullptr) ::UnmapViewOfFile(mapping_);
}

}  // namespace allmem
