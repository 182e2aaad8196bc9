// A file mapped read-only into memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace allmem {

class MappedFile {
 public:
  // Maps a regular file. Throws Error: kNotFound when there is none, kIo when the system refuses or it is
  // something else (a directory, a pipe, a device). Symbolic links are followed.
  explicit MappedFile(const std::string& path);
  // A part of an open file, which may be closed afterwards. `name` stands for its path. Throws Error:
  // kInvalidArgument when the part is not within the file, kIo; kUnsupported on Windows.
  MappedFile(const std::string& name, int fd, uint64_t offset, size_t size);
  // Memory that somebody else keeps as it is for as long as this object lives.
  MappedFile(const std::string& name, std::span<const std::byte> borrowed)
      : path_(name), data_(borrowed.data()), size_(borrowed.size()) {}
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::string& path() const { return path_; }

 private:
  void map(int fd, uint64_t offset, size_t size);  // POSIX

  std::string path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
  void* mapping_ = nullptr;  // begins at a page at or before data_; null when nothing was mapped
  size_t mapping_size_ = 0;
};

}  // namespace allmem
