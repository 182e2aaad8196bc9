// Snapshots: a head of fixed size, the caller's note, the state; all under one checksum.
#include "runtime/snapshot.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string_view>
#include <system_error>
#include <utility>

#include "platform/error.h"
#include "platform/printable.h"

namespace allmem {

namespace {

static_assert(std::endian::native == std::endian::little, "snapshots hold little-endian numbers as they are");

constexpr std::array<char, 8> kMagic = {'A', 'L', 'L', 'M', 'E', 'M', 'S', 'S'};
constexpr uint32_t kVersion = 2;

// All fields lie without gaps.
struct Head {
  std::array<char, 8> magic;
  uint32_t version;
  uint32_t frozen;       // 0 or 1
  uint64_t fingerprint;  // of the model
  uint64_t position;
  uint64_t note_bytes;
  uint64_t state_bytes;
  uint64_t checksum;  // of everything else, with this field as 0
};
static_assert(sizeof(Head) == 56 && std::is_trivially_copyable_v<Head>);

// FNV-1a over words of 8 bytes, the last one filled up with zeros. Every step is a bijection of the hash, so
// a change within one word never goes unnoticed.
uint64_t hash(std::span<const std::byte> bytes, uint64_t seed) {
  constexpr uint64_t kPrime = 0x00000100000001B3;
  uint64_t value = seed ^ bytes.size();
  for (size_t i = 0; i < bytes.size(); i += sizeof(uint64_t)) {
    uint64_t word = 0;
    std::memcpy(&word, bytes.data() + i, std::min(sizeof word, bytes.size() - i));
    value = std::rotl((value ^ word) * kPrime, 31);
  }
  return value;
}

uint64_t checksum(Head head, std::span<const std::byte> note_and_state) {
  head.checksum = 0;
  return hash(note_and_state, hash(std::as_bytes(std::span(&head, 1)), 0xCBF29CE484222325));
}

[[noreturn]] void refuse(const std::string& why) {
  throw Error(ErrorCode::kBadSnapshot, "This memory cannot be loaded: " + why + ".");
}

Head read_head(std::span<const std::byte> snapshot) {
  Head head{};
  if (snapshot.size() < sizeof head) {
    refuse("it has only " + std::to_string(snapshot.size()) + " bytes, too few for a snapshot");
  }
  std::memcpy(&head, snapshot.data(), sizeof head);
  if (head.magic != kMagic) refuse("it is not a snapshot of allmem-edge");
  if (head.version != kVersion) {
    refuse("it has the format " + std::to_string(head.version) +
           ", but this version of allmem-edge reads format " + std::to_string(kVersion) +
           (head.version > kVersion ? "; update allmem-edge" : ""));
  }
  const size_t rest = snapshot.size() - sizeof head;
  if (head.note_bytes > kMaxNote || head.note_bytes > rest || head.state_bytes != rest - head.note_bytes) {
    refuse("its length is not what its head says; it may have been cut short");
  }
#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
  return head;  // a fuzzer would not get past the checksum
#endif
  if (head.checksum != checksum(head, snapshot.subspan(sizeof head))) {
    refuse("its checksum is wrong, so it is damaged");
  }
  return head;
}

std::string reason() { return std::strerror(errno); }

// A file under construction: removed unless it is kept.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& path) : path_(path + ".XXXXXX"), fd_(::mkstemp(path_.data())) {
    if (fd_ < 0) fail("cannot be created");
  }
  ~TemporaryFile() {
    if (fd_ >= 0) ::close(fd_);
    if (!path_.empty()) ::unlink(path_.c_str());
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  void write(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t written = ::write(fd_, bytes.data(), bytes.size());
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) fail("cannot be written");
      bytes = bytes.subspan(static_cast<size_t>(written));
    }
  }

  // Makes this file the one of that name, for good.
  void replace(const std::string& target) {
    if (::fsync(fd_) != 0) fail("cannot be written");
    if (::close(std::exchange(fd_, -1)) != 0) fail("cannot be written");
    if (::rename(path_.c_str(), target.c_str()) != 0) fail("cannot be renamed to '" + target + "'");
    path_.clear();
    const std::string folder = std::filesystem::path(target).parent_path().string();
    const int directory = ::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory >= 0) {  // some file systems cannot sync a directory; the file itself is safe by now
      ::fsync(directory);
      ::close(directory);
    }
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw Error(ErrorCode::kIo, printable("The memory was not saved: the file '" + path_ + "' " + what +
                                          ": " + reason() + "."));
  }

  std::string path_;
  int fd_;
};

}  // namespace

uint64_t fingerprint(const Model& model) {
  // Some KiB of every weight: any training changes them all, and a phone need not read the whole file.
  constexpr size_t kSample = 512, kSamples = 8;
  uint64_t value = 0;
  const auto add = [&value](const void* data, size_t bytes) {
    value = hash({static_cast<const std::byte*>(data), bytes}, value);
  };
  for (const StateInfo& state : model.info().states) {
    add(state.name.data(), state.name.size());
    add(state.shape.data(), state.shape.size() * sizeof(int64_t));
  }
  for (const onnx::Tensor& tensor : model.program().source->initializers) {
    add(tensor.name.data(), tensor.name.size());
    const size_t bytes = tensor.data.size();
    add(&bytes, sizeof bytes);
    if (bytes <= kSample * kSamples) {
      add(tensor.data.data(), bytes);
    } else {
      for (size_t i = 0; i < kSamples; ++i)
        add(tensor.data.data() + (bytes - kSample) / (kSamples - 1) * i, kSample);
    }
  }
  return value;
}

std::vector<std::byte> save_snapshot(const Session& session, std::string_view note) {
  if (note.size() > kMaxNote) {
    throw Error(ErrorCode::kInvalidArgument, "The note of a snapshot has at most " +
                                                 std::to_string(kMaxNote) + " bytes, not " +
                                                 std::to_string(note.size()) + ".");
  }
  const std::span<const std::byte> state = session.state_memory();
  Head head{.magic = kMagic,
            .version = kVersion,
            .frozen = session.frozen(),
            .fingerprint = fingerprint(session.model()),
            .position = session.position(),
            .note_bytes = note.size(),
            .state_bytes = state.size(),
            .checksum = 0};
  std::vector<std::byte> bytes(sizeof head + note.size() + state.size());
  std::ranges::copy(std::as_bytes(std::span(note)), bytes.begin() + sizeof head);
  std::ranges::copy(state, bytes.end() - static_cast<ptrdiff_t>(state.size()));
  head.checksum = checksum(head, std::span(bytes).subspan(sizeof head));
  std::memcpy(bytes.data(), &head, sizeof head);
  return bytes;
}

SnapshotInfo inspect_snapshot(std::span<const std::byte> snapshot) {
  const Head head = read_head(snapshot);
  if (head.frozen > 1) refuse("it neither says that it is frozen nor that it is not");
  const auto note = snapshot.subspan(sizeof head, head.note_bytes);
  return {.position = head.position,
          .frozen = head.frozen == 1,
          .state_bytes = head.state_bytes,
          .fingerprint = head.fingerprint,
          .note = std::string(reinterpret_cast<const char*>(note.data()), note.size())};
}

SnapshotInfo load_snapshot(Session& session, std::span<const std::byte> snapshot) {
  SnapshotInfo info = inspect_snapshot(snapshot);
  if (info.fingerprint != fingerprint(session.model()) || info.state_bytes != session.state_bytes()) {
    refuse("it belongs to another model");
  }
  session.restore(snapshot.last(info.state_bytes), info.position);
  session.freeze(info.frozen);
  return info;
}

void save_snapshot_file(const Session& session, std::string_view note, const std::string& path) {
  if (path.empty() || path.find('\0') != std::string::npos) {
    throw Error(ErrorCode::kInvalidArgument, "A snapshot needs the name of a file to be saved to.");
  }
  const std::vector<std::byte> bytes = save_snapshot(session, note);
  TemporaryFile file(path);
  file.write(bytes);
  file.replace(path);
}

SnapshotInfo load_snapshot_file(Session& session, const std::string& path) {
  // Read, not mapped: another program may cut the file short meanwhile. A byte more than can be right will
  // do.
  std::vector<std::byte> bytes(sizeof(Head) + kMaxNote + session.state_bytes() + 1);
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) {
    throw Error(ErrorCode::kNotFound, printable("There is no saved memory '" + path + "'."));
  }
  std::ifstream file(path, std::ios::binary);
  file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  if (file.bad() || !std::filesystem::is_regular_file(path, ignored)) {
    throw Error(ErrorCode::kIo, printable("The saved memory '" + path + "' cannot be read."));
  }
  try {
    return load_snapshot(session, std::span(bytes).first(static_cast<size_t>(file.gcount())));
  } catch (const Error& error) {
    throw Error(error.code(), printable("'" + path + "': " + error.what()));
  }
}

}  // namespace allmem
