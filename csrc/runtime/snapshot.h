// Everything that a writer holds as bytes, and as a file that always holds either the old state or the new
// one. The format and its promises are in docs/memory-files.md. Bytes from outside are checked wholly before
// anything changes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/writer.h"

namespace allmem {

// What a snapshot says of itself, without its model.
struct SnapshotInfo {
  uint32_t format = 0;
  uint64_t position = 0;  // tokens seen
  bool frozen = false;
  bool exact = false;             // of a session that calculates in float32 everywhere
  bool unfinished = false;        // holds a text that is not over
  uint64_t fingerprint = 0;       // of the model that it belongs to
  uint64_t state_bytes = 0;       // of the session
  std::vector<StateInfo> states;  // its parts: names as valid UTF-8, and bytes; no shapes
  std::string chosen;             // ModelInfo::chosen of the session that saved it
  std::string note;               // what the caller put there
  uint64_t checksum = 0;
};

// What tells one model from another: names and shapes of its states, and samples of all its weights.
uint64_t fingerprint(const Model& model);

// `note` is the caller's own, at most kMaxNote bytes: it comes back with the state.
inline constexpr size_t kMaxNote = size_t{1} << 20;

// How many bytes save_snapshot() writes of the present state, and the writing, to a buffer of exactly so
// many. Throw kInvalidArgument, kPoisoned.
size_t snapshot_size(const Writer& writer, std::string_view note);
void save_snapshot(const Writer& writer, std::string_view note, std::span<std::byte> buffer);

// The same bytes, one piece after the other, of at most 1 MiB each. What `write` throws ends it. Returns the
// checksum.
uint64_t save_snapshot_to(const Writer& writer, std::string_view note,
                          FunctionRef<void(std::span<const std::byte>)> write);

// Where a snapshot is read from: `read` fills all of `into` from `offset` on, or throws.
struct SnapshotSource {
  uint64_t size;
  std::function<void(uint64_t offset, std::span<std::byte> into)> read;
};
// Sees what a snapshot says before it is loaded, and may refuse it by throwing.
using Accept = std::function<void(const SnapshotInfo& info)>;

// Checks a snapshot, whatever its model, and says what its head does. Throws kBadSnapshot.
SnapshotInfo inspect_snapshot(std::span<const std::byte> snapshot);
SnapshotInfo inspect_snapshot(const SnapshotSource& source);  // the state is not kept
// The same for a file. Throws kIo, kNotFound.
SnapshotInfo inspect_snapshot_file(const std::string& path);
// What a snapshot says that its checksum is. Throws kBadSnapshot.
uint64_t snapshot_checksum(const SnapshotSource& source);

// Makes `writer` what it was when the snapshot was taken, without marks. `tokenizer` may be null when no text
// was being written. Throws kBadSnapshot (damaged, cut short, of another model, format, precision or choices)
// and kUnsupported (no tokenizer): all is then unchanged. Ends a poisoning.
//
// It is read twice, in order: to check it, and to take it. No second copy of the state is made, so that
// a source that gives something else the second time leaves the session poisoned (kIo). Of format 3 or 4, a
// state that was kept otherwise then passes through a copy.
SnapshotInfo load_snapshot(Writer& writer, const std::shared_ptr<const Tokenizer>& tokenizer,
                           const SnapshotSource& source, const Accept& accept = {});
SnapshotInfo load_snapshot(Writer& writer, const std::shared_ptr<const Tokenizer>& tokenizer,
                           std::span<const std::byte> snapshot);

// The same through a file, links followed. Written to a new file beside it, synced and renamed: a crash at
// any moment leaves the old memory or the new one, and what it leaves beside it the next save or load
// removes. Throws kIo, kNotFound when there is nothing to load, and kConflict when somebody else has saved
// there since the writer did or was loaded from there, or when the writer could not be loaded from there. A
// file that the writer has never met is overwritten.
void save_snapshot_file(Writer& writer, std::string_view note, const std::string& path);
SnapshotInfo load_snapshot_file(Writer& writer, const std::shared_ptr<const Tokenizer>& tokenizer,
                                const std::string& path, const Accept& accept = {});
// Removes a saved memory and whatever a killed save left of it. False when there is none.
bool delete_snapshot_file(const std::string& path);

}  // namespace allmem
