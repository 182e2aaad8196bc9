// Windows: a file beside the target, FlushFileBuffers and MoveFileEx. A second file beside it is the lock:
// who has it open has it alone, and it goes when it is closed, by whomever.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <thread>

#include "platform/error.h"
#include "platform/file_path.h"
#include "platform/new_file.h"
#include "platform/printable.h"
#include "platform/windows_handle.h"

namespace allmem {

struct NewFile::System {
  WindowsHandle lock;
  std::filesystem::path path;
  WindowsHandle file;
};

namespace {

[[noreturn]] void fail_with(const std::string& path, const std::string& what, DWORD error) {
  throw Error(ErrorCode::kIo,
              printable("The file '" + path + "' " + what + ": " + windows_reason(error) + "."));
}

// Short whatever the target's name, which may be as long as names can be.
std::string name_beside(const std::string& target) {
  const size_t folder = target.find_last_of("/\\") + 1;  // 0 without one
  uint64_t hash = 0xCBF29CE484222325;
  for (const char letter : target.substr(folder))
    hash = (hash ^ static_cast<unsigned char>(letter)) * 0x100000001B3;
  std::string name = ".allmem-";
  for (int shift = 60; shift >= 0; shift -= 4) name += "0123456789abcdef"[hash >> shift & 15];
  return target.substr(0, folder) + name + "-new";
}

// Null when somebody else has it, also after waiting for it.
HANDLE lock_of(const std::string& beside, bool wait) {
  const std::filesystem::path path = to_path(beside + "-lock");
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (true) {
    const HANDLE lock = ::CreateFileW(path.c_str(), GENERIC_WRITE | DELETE, 0, nullptr, OPEN_ALWAYS,
                                      FILE_ATTRIBUTE_HIDDEN | FILE_FLAG_DELETE_ON_CLOSE, nullptr);
    if (lock != INVALID_HANDLE_VALUE) return lock;
    const DWORD error = ::GetLastError();
    // Access is denied while a file is on its way out, too.
    if (error != ERROR_SHARING_VIOLATION && error != ERROR_ACCESS_DENIED)
      fail_with(beside, "cannot be created", error);
    if (!wait || std::chrono::steady_clock::now() > end) return nullptr;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

}  // namespace

// Of what exists: a link to nothing is replaced.
std::string follow_links(const std::string& path) {
  std::error_code error;
  const std::filesystem::path real = real_path(to_path(path), error);
  return error ? path : to_name(real);
}

NewFile::NewFile(const std::string& path, const IsWhole&)
    : target_(follow_links(path)), path_(name_beside(target_)) {
  const HANDLE lock = lock_of(path_, /*wait=*/true);
  if (lock == nullptr) {
    throw Error(ErrorCode::kIo, printable("Another process has been saving to '" + target_ +
                                          "' for more than ten seconds; try again."));
  }
  system_.reset(new System{WindowsHandle(lock), to_path(path_), WindowsHandle(INVALID_HANDLE_VALUE)});
  const HANDLE file = ::CreateFileW(system_->path.c_str(), GENERIC_WRITE, 0, nullptr, CREATE_ALWAYS,
                                    FILE_ATTRIBUTE_NORMAL, nullptr);
  if (file == INVALID_HANDLE_VALUE) fail("cannot be created");
  system_->file = WindowsHandle(file);
}

NewFile::~NewFile() {
  if (!system_ || !system_->file) return;
  system_->file.close();  // an open file cannot be deleted
  ::DeleteFileW(system_->path.c_str());
}

void NewFile::write(std::span<const std::byte> bytes) {
  constexpr size_t kMost = size_t{1} << 30;  // of one call, which counts in 32 bits
  while (!bytes.empty()) {
    DWORD written = 0;
    const auto size = static_cast<DWORD>(std::min(bytes.size(), kMost));
    if (::WriteFile(system_->file.get(), bytes.data(), size, &written, nullptr) == 0)
      fail("cannot be written");
    bytes = bytes.subspan(written);
  }
}

void NewFile::replace() {
  if (::FlushFileBuffers(system_->file.get()) == 0) fail("cannot be written");
  if (!system_->file.close()) fail("cannot be written");
  constexpr DWORD kHow = MOVEFILE_REPLACE_EXISTING | MOVEFILE_WRITE_THROUGH;
  if (::MoveFileExW(system_->path.c_str(), to_path(target_).c_str(), kHow) == 0) {
    const DWORD error = ::GetLastError();
    ::DeleteFileW(system_->path.c_str());
    fail_with(path_, "cannot be renamed to '" + target_ + "'", error);
  }
}

bool NewFile::settle(const std::string& path, const IsWhole&, bool wait) {
  try {
    const std::string beside = name_beside(follow_links(path));
    const std::filesystem::path file = to_path(beside);
    if (::GetFileAttributesW(file.c_str()) == INVALID_FILE_ATTRIBUTES) return false;
    const HANDLE handle = lock_of(beside, wait);
    const WindowsHandle lock(handle == nullptr ? INVALID_HANDLE_VALUE : handle);
    if (lock) ::DeleteFileW(file.c_str());
    return true;
  } catch (const Error&) {
    return false;  // what is wrong shows when the file itself is read
  }
}

bool NewFile::remove(const std::string& path) {
  settle(path, {}, /*wait=*/true);
  const std::string target = follow_links(path);
  if (::DeleteFileW(to_path(target).c_str()) != 0) return true;
  const DWORD error = ::GetLastError();
  if (error == ERROR_FILE_NOT_FOUND || error == ERROR_PATH_NOT_FOUND) return false;
  fail_with(target, "cannot be removed", error);
}

void NewFile::fail(const std::string& what) const { fail_with(path_, what, ::GetLastError()); }

}  // namespace allmem
