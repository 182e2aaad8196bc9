// Windows: a file of a name that was free, FlushFileBuffers and MoveFileEx.
#include <algorithm>
#include <cstdint>
#include <random>

#include "platform/error.h"
#include "platform/file_path.h"
#include "platform/new_file.h"
#include "platform/printable.h"
#include "platform/windows_handle.h"

namespace allmem {

struct NewFile::System {
  std::filesystem::path path;
  WindowsHandle file;
};

namespace {

// Six letters and digits.
std::string random_ending() {
  std::random_device random;
  std::uniform_int_distribution<size_t> digit(0, 31);
  std::string ending;
  for (int i = 0; i < 6; ++i) ending += "abcdefghijklmnopqrstuvwxyz234567"[digit(random)];
  return ending;
}

}  // namespace

NewFile::NewFile(const std::string& target) : target_(target) {
  constexpr int kAttempts = 100;
  for (int attempt = 1; !system_; ++attempt) {
    path_ = target + "." + random_ending();
    const std::filesystem::path path = to_path(path_);
    const HANDLE file =
        ::CreateFileW(path.c_str(), GENERIC_WRITE, 0, nullptr, CREATE_NEW, FILE_ATTRIBUTE_NORMAL, nullptr);
    if (file != INVALID_HANDLE_VALUE) {
      system_.reset(new System{path, WindowsHandle(file)});
    } else if (::GetLastError() != ERROR_FILE_EXISTS || attempt == kAttempts) {
      fail("cannot be created");
    }
  }
}

NewFile::~NewFile() {
  system_->file.close();  // an open file cannot be deleted
  if (!path_.empty()) ::DeleteFileW(system_->path.c_str());
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
    fail("cannot be renamed to '" + target_ + "'");
  }
  path_.clear();
}

void NewFile::fail(const std::string& what) const {
  const std::string reason = windows_reason(::GetLastError());
  throw Error(ErrorCode::kIo, printable("The file '" + path_ + "' " + what + ": " + reason + "."));
}

}  // namespace allmem
