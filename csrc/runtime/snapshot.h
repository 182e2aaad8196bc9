// A session's whole state as bytes, and as a file that always holds either the old state or the new one.
// The format is in docs/format.md. Bytes from outside are checked wholly before anything changes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "runtime/session.h"

namespace allmem {

// What the head of a snapshot says.
struct SnapshotInfo {
  uint64_t position = 0;  // tokens seen
  bool frozen = false;
  size_t state_bytes = 0;
  uint64_t fingerprint = 0;  // of the model that it belongs to
  std::string note;          // what the caller put there
};

// What tells one model from another: names and shapes of its states, and samples of all its weights.
uint64_t fingerprint(const Model& model);

// `note` is the caller's own, at most kMaxNote bytes: it comes back with the state. Throws kInvalidArgument,
// kPoisoned.
inline constexpr size_t kMaxNote = size_t{1} << 20;
std::vector<std::byte> save_snapshot(const Session& session, std::string_view note);

// Checks a snapshot, whatever its model, and says what its head does. Throws kBadSnapshot.
SnapshotInfo inspect_snapshot(std::span<const std::byte> snapshot);

// Makes `session` what it was when the snapshot was taken. Throws kBadSnapshot (damaged, cut short, of
// another model or format): the session is then unchanged. Ends a poisoning.
SnapshotInfo load_snapshot(Session& session, std::span<const std::byte> snapshot);

// The same through a file. Written to a temporary file beside `path`, synced and renamed: a crash at any
// moment leaves the old file or the new one. Throws kIo, and kNotFound when there is nothing to load.
void save_snapshot_file(const Session& session, std::string_view note, const std::string& path);
SnapshotInfo load_snapshot_file(Session& session, const std::string& path);

}  // namespace allmem
