// POSIX: a file beside the target, locked with flock(), synced and renamed.
#include "platform/new_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#if defined(__linux__)
#include <sys/xattr.h>
#elif defined(__APPLE__)
#include <copyfile.h>
#endif
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <climits>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <utility>

#include "platform/error.h"
#include "platform/printable.h"

namespace allmem {

namespace {

[[noreturn]] void fail_with(const std::string& path, const std::string& what, int error) {
  const std::string reason = std::strerror(error);
  throw Error(ErrorCode::kIo, printable("The file '" + path + "' " + what + ": " + reason + "."));
}

class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Descriptor() { close(); }
  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  bool close() { return fd_ < 0 || ::close(std::exchange(fd_, -1)) == 0; }

 private:
  int fd_ = -1;
};

std::string folder_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash + 1);
}

// Short whatever the target's name, which may be as long as names can be.
std::string name_beside(const std::string& target) {
  uint64_t hash = 0xCBF29CE484222325;
  for (const char letter : target.substr(folder_of(target).size()))
    hash = (hash ^ static_cast<unsigned char>(letter)) * 0x100000001B3;
  std::string name = ".allmem-";
  for (int shift = 60; shift >= 0; shift -= 4) name += "0123456789abcdef"[hash >> shift & 15];
  return folder_of(target) + name + "-new";
}

void sync_file(int fd, const std::string& path) {
#ifdef F_FULLFSYNC  // Apple's fsync() leaves data in the disk's own memory
  if (::fcntl(fd, F_FULLFSYNC) == 0) return;
#endif
  if (::fsync(fd) != 0) fail_with(path, "cannot be written", errno);
}

// Some file systems cannot sync a directory; the file itself is safe by then.
void sync_folder(const std::string& path) {
  const std::string folder = folder_of(path);
  const Descriptor directory(
      ::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (directory) ::fsync(directory.get());
}

void write_all(int fd, std::span<const std::byte> bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail_with(path, "cannot be written", errno);
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
}

// Gives the open file `to` what people and systems attach to a file: owner, mode, extended attributes, and so
// its access control lists. As far as the system lets us: none of it is worth losing a memory for.
void copy_attributes([[maybe_unused]] const std::string& from, const struct stat& status, int to) {
#if defined(__linux__)
  std::array<char, size_t{1} << 12> names, value;
  const ssize_t size = ::listxattr(from.c_str(), names.data(), names.size());
  for (const char* name = names.data(); name < names.data() + size; name += std::strlen(name) + 1) {
    const ssize_t bytes = ::getxattr(from.c_str(), name, value.data(), value.size());
    if (bytes >= 0) ::fsetxattr(to, name, value.data(), static_cast<size_t>(bytes), 0);
  }
#elif defined(__APPLE__)
  const Descriptor file(::open(from.c_str(), O_RDONLY | O_CLOEXEC));
  if (file) ::fcopyfile(file.get(), to, nullptr, COPYFILE_ACL | COPYFILE_XATTR);
#endif
  [[maybe_unused]] const int owned = ::fchown(to, status.st_uid, status.st_gid);
  ::fchmod(to, status.st_mode & 07777);
}

// Makes the content of `target` that of `from`, in place.
void write_in_place(int from, const std::string& target) {
  const Descriptor to(::open(target.c_str(), O_WRONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!to) fail_with(target, "can neither be replaced nor written", errno);
  std::array<std::byte, size_t{1} << 14> block;
  off_t done = 0;
  while (true) {
    const ssize_t count = ::pread(from, block.data(), block.size(), done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail_with(target, "cannot be written from the copy beside it", errno);
    if (count == 0) break;
    write_all(to.get(), std::span(block).first(static_cast<size_t>(count)), target);
    done += count;
  }
  if (::ftruncate(to.get(), done) != 0) fail_with(target, "cannot be written", errno);
  sync_file(to.get(), target);
}

bool is_same_file(const struct stat& a, const struct stat& b) {
  return a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

enum class Wait { kNo, kYes };

// What came of opening the file beside a target for this process alone.
struct Locked {
  enum class Result { kMine, kNone, kBusy, kNoLocks } result;
  Descriptor file;
};

// `flags`: O_CREAT, or 0 to find out whether there is one.
Locked open_locked(const std::string& path, int flags, Wait wait) {
  using Result = Locked::Result;
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (true) {
    Descriptor file(::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | flags, 0600));
    if (!file && errno == ENOENT && flags == 0) return {Result::kNone, {}};
    if (!file && (errno == ELOOP || errno == EISDIR)) return {Result::kNoLocks, {}};  // somebody's joke
    if (!file) fail_with(path, flags == 0 ? "cannot be opened" : "cannot be created", errno);
    if (::flock(file.get(), LOCK_EX | LOCK_NB) == 0) {
      struct stat opened, named;
      if (::fstat(file.get(), &opened) != 0) fail_with(path, "cannot be examined", errno);
      // Whoever held the lock has renamed or removed what was opened: look again.
      if (::lstat(path.c_str(), &named) != 0 || !is_same_file(opened, named)) continue;
      if (S_ISREG(opened.st_mode) && opened.st_uid == ::geteuid() && opened.st_nlink == 1)
        return {Result::kMine, std::move(file)};
      ::unlink(path.c_str());
      return {Result::kNoLocks, {}};
    }
    if (errno == EINTR) continue;
    if (errno != EWOULDBLOCK) return {Result::kNoLocks, {}};
    if (wait == Wait::kNo) return {Result::kBusy, {}};
    if (std::chrono::steady_clock::now() > end) return {Result::kBusy, {}};
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

bool is_file(const std::string& path) {
  struct stat status;
  return ::stat(path.c_str(), &status) == 0 && S_ISREG(status.st_mode);
}

// Puts what is in `file`, at `path`, in the target's place. `keep` says whether `path` is then to stay: no
// file of ours has this name any more, or the target is half written and this is the one that is whole.
void put(const Descriptor& file, const std::string& path, const std::string& target, bool& keep) {
  struct stat old;
  const bool there = ::stat(target.c_str(), &old) == 0;
  if (there) copy_attributes(target, old, file.get());
  sync_file(file.get(), path);
  if (::rename(path.c_str(), target.c_str()) == 0) {
    keep = true;
  } else {
    const int error = errno;
    const bool fixed = error == EBUSY || error == EXDEV || error == EPERM || error == EACCES;
    if (!there || !fixed) fail_with(path, "cannot be renamed to '" + target + "'", error);
    sync_folder(path);
    keep = true;
    write_in_place(file.get(), target);
    keep = false;
  }
  sync_folder(target);
}

// With the lock of what somebody left: brings the target to its end if it was being written in place.
void settle_locked(const Descriptor& file, const std::string& path, const std::string& target,
                   const NewFile::IsWhole& is_whole) {
  bool keep = false;
  if (is_file(target) && !is_whole(target) && is_whole(path)) put(file, path, target, keep);
  if (!keep) ::unlink(path.c_str());  // where the folder is only for reading, it stays
}

}  // namespace

struct NewFile::System {
  Descriptor file;
  bool keep = false;  // path_ is not to be removed
};

std::string follow_links(const std::string& path) {
  std::string target = path;
  for (int links = 0; links < 40; ++links) {
    std::array<char, PATH_MAX> next;
    const ssize_t size = ::readlink(target.c_str(), next.data(), next.size());
    if (size < 0 || static_cast<size_t>(size) == next.size()) return target;  // not a link, or not there
    const std::string to(next.data(), static_cast<size_t>(size));
    target = to.starts_with('/') ? to : folder_of(target) + to;
  }
  fail_with(path, "cannot be opened", ELOOP);
}

NewFile::NewFile(const std::string& path, const IsWhole& is_whole)
    : target_(follow_links(path)), path_(name_beside(target_)), system_(std::make_unique<System>()) {
  if (struct stat old; ::stat(target_.c_str(), &old) == 0 && !S_ISREG(old.st_mode))
    throw Error(ErrorCode::kIo, printable("'" + target_ + "' is not a regular file."));
  while (true) {
    Locked locked = open_locked(path_, O_CREAT, Wait::kYes);
    if (locked.result == Locked::Result::kBusy) {
      throw Error(ErrorCode::kIo, printable("Another process has been saving to '" + target_ +
                                            "' for more than ten seconds; try again."));
    }
    if (locked.result == Locked::Result::kNoLocks) {
      path_ += ".XXXXXX";
      system_->file = Descriptor(::mkostemp(path_.data(), O_CLOEXEC));
      if (!system_->file) fail("cannot be created");
      return;
    }
    if (struct stat status; ::fstat(locked.file.get(), &status) == 0 && status.st_size == 0) {
      system_->file = std::move(locked.file);
      return;
    }
    settle_locked(locked.file, path_, target_, is_whole);
  }
}

NewFile::~NewFile() {
  if (system_->file && !system_->keep) ::unlink(path_.c_str());  // before the lock goes
}

void NewFile::write(std::span<const std::byte> bytes) { write_all(system_->file.get(), bytes, path_); }

void NewFile::replace() {
  put(system_->file, path_, target_, system_->keep);
  if (system_->keep && !system_->file.close()) fail("cannot be written");
}

bool NewFile::settle(const std::string& path, const IsWhole& is_whole, bool wait) {
  try {
    const std::string target = follow_links(path), beside = name_beside(target);
    Locked locked = open_locked(beside, 0, wait ? Wait::kYes : Wait::kNo);
    if (locked.result == Locked::Result::kMine) settle_locked(locked.file, beside, target, is_whole);
    return locked.result != Locked::Result::kNone;
  } catch (const Error&) {
    return false;  // what is wrong shows when the file itself is read
  }
}

bool NewFile::remove(const std::string& path) {
  const std::string target = follow_links(path), beside = name_beside(target);
  Locked locked = open_locked(beside, 0, Wait::kYes);
  ::unlink(beside.c_str());
  if (::unlink(target.c_str()) != 0) {
    if (errno == ENOENT || errno == ENOTDIR) return false;
    // A mount of its own: what it holds can go.
    const Descriptor file(::open(target.c_str(), O_WRONLY | O_TRUNC | O_CLOEXEC | O_NOFOLLOW));
    if (!file) fail_with(target, "can neither be removed nor emptied", errno);
    sync_file(file.get(), target);
  }
  sync_folder(target);
  return true;
}

void NewFile::fail(const std::string& what) const { fail_with(path_, what, errno); }

}  // namespace allmem
