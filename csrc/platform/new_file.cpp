// POSIX: a temporary file, fsync and rename.
#include "platform/new_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <utility>

#include "platform/error.h"
#include "platform/printable.h"

namespace allmem {

struct NewFile::System {
  int fd = -1;
  ~System() {
    if (fd >= 0) ::close(fd);
  }
};

NewFile::NewFile(const std::string& target)
    : target_(target), path_(target + ".XXXXXX"), system_(std::make_unique<System>()) {
  system_->fd = ::mkstemp(path_.data());
  if (system_->fd < 0) fail("cannot be created");
}

NewFile::~NewFile() {
  if (!path_.empty()) ::unlink(path_.c_str());
}

void NewFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(system_->fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail("cannot be written");
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
}

void NewFile::replace() {
  if (::fsync(system_->fd) != 0) fail("cannot be written");
  if (::close(std::exchange(system_->fd, -1)) != 0) fail("cannot be written");
  if (::rename(path_.c_str(), target_.c_str()) != 0) fail("cannot be renamed to '" + target_ + "'");
  path_.clear();
  const std::string folder = std::filesystem::path(target_).parent_path().string();
  const int directory = ::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory >= 0) {  // some file systems cannot sync a directory; the file itself is safe by now
    ::fsync(directory);
    ::close(directory);
  }
}

void NewFile::fail(const std::string& what) const {
  const std::string reason = std::strerror(errno);
  throw Error(ErrorCode::kIo, printable("The file '" + path_ + "' " + what + ": " + reason + "."));
}

}  // namespace allmem
