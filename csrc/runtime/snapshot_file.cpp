// Snapshots in files: read as they are, checked against what the writer knows of them, replaced in one step.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <optional>
#include <system_error>
#include <utility>

#include "platform/error.h"
#include "platform/file_path.h"
#include "platform/is_there.h"
#include "platform/new_file.h"
#include "platform/printable.h"
#include "runtime/bytes.h"
#include "runtime/snapshot.h"

namespace allmem {

namespace {

// A saved memory in the reading. Not mapped: another program may cut the file short meanwhile.
class SnapshotFile {
 public:
  explicit SnapshotFile(const std::string& path) : path_(path) {
    const std::filesystem::path where = to_path(path);
    if (!is_there(where)) {
      throw Error(ErrorCode::kNotFound, printable("There is no memory file '" + path + "'."));
    }
    std::error_code error;
    if (!std::filesystem::is_regular_file(where, error)) fail();
    file_.rdbuf()->pubsetbuf(nullptr, 0);  // no copies of what was said
    // The size of what was opened: under this name there may be another file by now.
    file_.open(where, std::ios::binary | std::ios::ate);
    const std::streamoff size = file_ ? std::streamoff(file_.tellg()) : -1;
    if (size < 0) fail();
    size_ = static_cast<uint64_t>(size);
  }

  SnapshotSource source() {
    return {.size = size_, .read = [this](uint64_t offset, std::span<std::byte> into) {
              file_.seekg(static_cast<std::streamoff>(offset));
              file_.read(reinterpret_cast<char*>(into.data()), static_cast<std::streamsize>(into.size()));
              if (file_.bad()) fail();
              if (!file_) refuse_snapshot("it was cut short while it was read");
            }};
  }

 private:
  [[noreturn]] void fail() const {
    throw Error(ErrorCode::kIo, printable("The memory file '" + path_ + "' cannot be read."));
  }

  std::string path_;
  std::ifstream file_;
  uint64_t size_ = 0;
};

SnapshotInfo inspect_file_as_it_is(const std::string& path) {
  SnapshotFile file(path);
  return inspect_snapshot(file.source());
}

bool is_whole(const std::string& path) {
  try {
    inspect_file_as_it_is(path);
    return true;
  } catch (const Error&) {
    return false;
  }
}

// Calls read(), which reads the file; what is wrong with the content is said of this file. What a killed save
// left is seen to first. A file that is being written in place, by a process that is killed or goes on, is
// read again when that is over.
template <class Read>
SnapshotInfo with_file(const std::string& path, const Read& read) {
  NewFile::settle(path, is_whole, /*wait=*/false);
  for (bool again = true;; again = false) {
    try {
      return read();
    } catch (const Error& reason) {
      const bool bad = reason.code() == ErrorCode::kBadSnapshot;
      if (bad && again && NewFile::settle(path, is_whole, /*wait=*/true)) continue;
      if (reason.code() == ErrorCode::kIo) throw;
      throw Error(reason.code(), printable("'" + path + "': " + reason.what()));
    }
  }
}

// One name for a file, whichever way it is called.
std::string identity(const std::string& path) {
  std::error_code error;
  const std::filesystem::path whole = real_path(to_path(path), error);
  return error ? path : to_name(whole);
}

void forget(Writer& writer, const std::string& name) {
  std::erase_if(writer.files, [&](const Writer::File& file) { return file.path == name; });
}

void remember(Writer& writer, Writer::File file) {
  forget(writer, file.path);
  if (writer.files.size() == Writer::kMaxFiles) writer.files.erase(writer.files.begin());
  writer.files.push_back(std::move(file));
}

// A file that could not be loaded is somebody's memory all the same. One that the writer has met before is
// known by its checksum.
void remember_unread(Writer& writer, const std::string& path) {
  std::string name = identity(path);
  if (std::ranges::find(writer.files, name, &Writer::File::path) == writer.files.end())
    remember(writer, {.path = std::move(name), .checksum = {}});
}

// Throws kConflict when the file at `target`, which the caller names `path`, is not what the writer last met
// there, or is one that it could not load; and kIo when it cannot be read. One that is gone is none.
void check_known(const Writer& writer, const std::string& target, const std::string& path) {
  const auto known = std::ranges::find(writer.files, identity(target), &Writer::File::path);
  if (known == writer.files.end() || !is_there(to_path(target))) return;
  const auto conflict = [&](const std::string& why) {
    throw Error(ErrorCode::kConflict, printable("The memory was not saved: " + why));
  };
  if (!known->checksum) {
    conflict("'" + path +
             "' could not be loaded into this session, and saving would overwrite it. Save under another "
             "name, or move that file away or delete it.");
  }
  std::optional<uint64_t> checksum;  // nothing: it is no memory any more
  try {
    SnapshotFile file(target);
    checksum = snapshot_checksum(file.source());
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kNotFound) return;
    if (error.code() != ErrorCode::kBadSnapshot) throw;
  }
  if (checksum != known->checksum) {
    conflict("somebody else has changed '" + path +
             "' since this session loaded or saved it. Load it to go on from there, or save under another "
             "name.");
  }
}

void require_name(const std::string& path) {
  if (path.empty() || path.find('\0') != std::string::npos) {
    throw Error(ErrorCode::kInvalidArgument, "A snapshot needs the name of a file to be saved to.");
  }
}

}  // namespace

SnapshotInfo inspect_snapshot_file(const std::string& path) {
  return with_file(path, [&] { return inspect_file_as_it_is(path); });
}

SnapshotInfo load_snapshot_file(Writer& writer, const std::shared_ptr<const Tokenizer>& tokenizer,
                                const std::string& path, const Accept& accept) {
  try {
    return with_file(path, [&] {
      SnapshotFile file(path);
      SnapshotInfo info = load_snapshot(writer, tokenizer, file.source(), accept);
      remember(writer, {.path = identity(path), .checksum = info.checksum});
      return info;
    });
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kNotFound) remember_unread(writer, path);
    throw;
  } catch (...) {  // of `accept`, or of an allocation
    remember_unread(writer, path);
    throw;
  }
}

void save_snapshot_file(Writer& writer, std::string_view note, const std::string& path) {
  require_name(path);
  try {
    NewFile file(path, is_whole);
    check_known(writer, file.target(), path);
    const uint64_t checksum =
        save_snapshot_to(writer, note, [&](std::span<const std::byte> piece) { file.write(piece); });
    forget(writer, identity(path));  // if it fails from here on, the file may hold either
    file.replace();
    remember(writer, {.path = identity(path), .checksum = checksum});
  } catch (const Error& reason) {
    if (reason.code() != ErrorCode::kIo) throw;
    throw Error(ErrorCode::kIo, printable(std::string("The memory was not saved. ") + reason.what()));
  }
  writer.session().model().say("saved a memory of " + std::to_string(writer.session().position()) +
                               " tokens");
}

bool delete_snapshot_file(const std::string& path) {
  require_name(path);
  return NewFile::remove(path);
}

}  // namespace allmem
