// A file that takes the place of another one in a single step.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

namespace allmem {

// Written beside the file that it will replace, under a name of its own; removed again unless replace() is
// reached. Whatever fails throws Error kIo, and the old file stays.
class NewFile {
 public:
  explicit NewFile(const std::string& target);
  ~NewFile();
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;

  void write(std::span<const std::byte> bytes);
  // On the disk, and then at the target's name: whoever opens that finds the old file or the new one. The
  // last call.
  void replace();

 private:
  struct System;  // what it is to the operating system
  [[noreturn]] void fail(const std::string& what) const;

  std::string target_;
  std::string path_;  // until it has the target's name
  std::unique_ptr<System> system_;
};

}  // namespace allmem
