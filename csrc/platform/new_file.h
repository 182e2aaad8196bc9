// A file that takes the place of another one in a single step.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>

namespace allmem {

// Where a symbolic link leads, through any number of them; it need not exist. Throws Error kIo for a circle.
std::string follow_links(const std::string& path);

// Written beside the file that it will replace, and removed again unless replace() is reached. Whatever fails
// throws Error kIo, and the old file stays.
//
// It has one name for each target, so that what a killed process leaves is found again, and is locked while
// it is written: one process at a time saves to a target. Where a system or a disk knows no locks it has a
// name of its own instead.
class NewFile {
 public:
  // Whether a file holds all that was to be written to it. For what a killed process left: where the target
  // could only be written in place and was not written to its end, the new file beside it is the one that is
  // whole.
  using IsWhole = std::function<bool(const std::string& path)>;

  // Waits for another process that is saving to `path`, some seconds.
  NewFile(const std::string& path, const IsWhole& is_whole);
  ~NewFile();
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;

  // What will be replaced: the path, with links followed.
  const std::string& target() const { return target_; }

  void write(std::span<const std::byte> bytes);
  // On the disk, and then at the target's name, with the mode, the owner and the extended attributes of what
  // was there: whoever opens it finds the old file or the new one. A target that cannot be replaced (a mount
  // of its own) is written in place, and the new file stays beside it until that is done. The last call.
  void replace();

  // Finishes or removes what a killed process left at `path`. False when there was nothing. While another
  // process is saving it is left to it; `wait` until it is done.
  static bool settle(const std::string& path, const IsWhole& is_whole, bool wait);
  // Removes the file, the links that lead to it staying, and all that was left beside it. False when there
  // was no such file.
  static bool remove(const std::string& path);

 private:
  struct System;  // what it is to the operating system
  [[noreturn]] void fail(const std::string& what) const;

  std::string target_;
  std::string path_;
  std::unique_ptr<System> system_;
};

}  // namespace allmem
