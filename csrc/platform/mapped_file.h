// A file mapped read-only into memory.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace allmem {

class MappedFile {
 public:
  // Maps a regular file. Throws Error: kNotFound when there is none, kIo when the system refuses or it is
  // something else (a directory, a pipe, a device). With `follow_symlink` false, a symbolic link as last
  // component is refused.
  explicit MappedFile(const std::string& path, bool follow_symlink = true);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace allmem
