// Mapping files on POSIX systems.
#include "platform/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <limits>
#include <system_error>
#include <utility>

#include "platform/error.h"
#include "platform/large_pages.h"
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
  if (error == ENOMEM)
    throw Error(ErrorCode::kOutOfMemory, printable("There is not enough memory to map '" + path + "'."));
  if (error == EFBIG) {
    throw Error(ErrorCode::kIo, printable("The file '" + path +
                                          "' is larger than this processor can address; "
                                          "use a smaller model, or a 64-bit system."));
  }
  throw Error(ErrorCode::kIo, printable("The file '" + path +
                                        "' cannot be read: " + std::generic_category().message(error) + "."));
}

}  // namespace

MappedFile::MappedFile(const std::string& path) : path_(path) {
  if (path.find('\0') != std::string::npos) fail(path, ENOENT);
  // O_NONBLOCK: opening a pipe that nobody writes to must not hang.
  const FileDescriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  if (file.value < 0) fail(path, errno);
  struct stat status;
  if (::fstat(file.value, &status) != 0) fail(path, errno);
  if (!S_ISREG(status.st_mode)) {
    throw Error(ErrorCode::kIo, printable("'" + path + "' is not a regular file."));
  }
  if (!std::in_range<size_t>(status.st_size)) fail(path, EFBIG);
  map(file.value, 0, static_cast<size_t>(status.st_size));
}

MappedFile::MappedFile(const std::string& name, int fd, uint64_t offset, size_t size) : path_(name) {
  struct stat status;
  if (::fstat(fd, &status) != 0) fail(name, errno);
  if (!S_ISREG(status.st_mode))
    throw Error(ErrorCode::kIo, printable("'" + name + "' is not a regular file."));
  const auto end = static_cast<uint64_t>(status.st_size);
  if (offset > end || size > end - offset) {
    throw Error(ErrorCode::kInvalidArgument,
                printable("'" + name + "' should be " + std::to_string(size) + " bytes at offset " +
                          std::to_string(offset) + " of a file that has only " + std::to_string(end) + "."));
  }
  map(fd, offset, size);
}

void MappedFile::map(int fd, uint64_t offset, size_t size) {
  size_ = size;
  if (size == 0) return;
  const size_t before = static_cast<size_t>(offset % static_cast<uint64_t>(::sysconf(_SC_PAGESIZE)));
  if (size > std::numeric_limits<size_t>::max() - before) fail(path_, EFBIG);
  void* address =
      ::mmap(nullptr, before + size, PROT_READ, MAP_PRIVATE, fd, static_cast<off_t>(offset - before));
  if (address == MAP_FAILED) fail(path_, errno);
  mapping_ = address;
  mapping_size_ = before + size;
  prefer_large_pages(mapping_, mapping_size_);
  data_ = static_cast<const std::byte*>(address) + before;
}

MappedFile::~MappedFile() {
  if (mapping_ != nullptr) ::munmap(mapping_, mapping_size_);
}

}  // namespace allmem
