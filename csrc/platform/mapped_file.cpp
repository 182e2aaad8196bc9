// Mapping files on POSIX systems.
#include "platform/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "platform/error.h"
#include "platform/printable.h"

namespace allmem {

namespace {

struct FileDescriptor {
  int value;
  ~FileDescriptor() {
    if (value >= 0) ::close(value);
  }
};

[[noreturn]] void fail(const std::string& path, int error) {
  if (error == ENOENT || error == ENOTDIR) {
    throw Error(ErrorCode::kNotFound, printable("There is no file '" + path + "'."));
  }
  throw Error(ErrorCode::kIo, printable("The file '" + path +
                                        "' cannot be read: " + std::generic_category().message(error) + "."));
}

}  // namespace

MappedFile::MappedFile(const std::string& path, bool follow_symlink) : path_(path) {
  if (path.find('\0') != std::string::npos) fail(path, ENOENT);
  // O_NONBLOCK: opening a pipe that nobody writes to must not hang.
  const int flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | (follow_symlink ? 0 : O_NOFOLLOW);
  const FileDescriptor file{::open(path.c_str(), flags)};
  if (file.value < 0) fail(path, errno);
  struct stat status;
  if (::fstat(file.value, &status) != 0) fail(path, errno);
  if (!S_ISREG(status.st_mode)) {
    throw Error(ErrorCode::kIo, printable("'" + path + "' is not a regular file."));
  }
  size_ = static_cast<size_t>(status.st_size);
  if (size_ == 0) return;
  void* address = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.value, 0);
  if (address == MAP_FAILED) fail(path, errno);
  data_ = static_cast<const std::byte*>(address);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

}  // namespace allmem
