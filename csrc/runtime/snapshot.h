// Everything that a writer holds as bytes, and as a file that always holds either the old state or the new
// one. The format and its promises are in docs/memory-files.md. Bytes from outside are checked wholly before
// anything changes.
#pragma once

#include <cstddef>
#include <cstdint>
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
  bool exact = false;        // of a session that calculates in float32 everywhere
  bool unfinished = false;   // holds a text that is not over
  uint64_t fingerprint = 0;  // of the model that it belongs to
  size_t state_bytes = 0;
  std::vector<StateInfo> states;  // its parts: names as valid UTF-8, and bytes; no shapes
  std::string chosen;             // ModelInfo::chosen of the session that saved it
  std::string note;               // what the caller put there
};

// What tells one model from another: names and shapes of its states, and samples of all its weights.
uint64_t fingerprint(const Model& model);

// `note` is the caller's own, at most kMaxNote bytes: it comes back with the state.
inline constexpr size_t kMaxNote = size_t{1} << 20;

// How many bytes save_snapshot() writes, and the writing, to a buffer of exactly so many. Throw
// kInvalidArgument, kPoisoned.
size_t snapshot_size(const Writer& writer, std::string_view note);
void save_snapshot(const Writer& writer, std::string_view note, std::span<std::byte> buffer);

// Checks a snapshot, whatever its model, and says what its head does. Throws kBadSnapshot.
SnapshotInfo inspect_snapshot(std::span<const std::byte> snapshot);
// The same for a file, of which the state is not kept. Throws kIo, kNotFound.
SnapshotInfo inspect_snapshot_file(const std::string& path);

// Makes `writer` what it was when the snapshot was taken, without marks. `tokenizer` may be null when no text
// was being written. Throws kBadSnapshot (damaged, cut short, of another model, format, precision or choices)
// and kUnsupported (no tokenizer): all is then unchanged. Ends a poisoning.
SnapshotInfo load_snapshot(Writer& writer, const std::shared_ptr<const Tokenizer>& tokenizer,
                           std::span<const std::byte> snapshot);

// The same through a file. Written to a temporary file beside `path`, synced and renamed: a crash at any
// moment leaves the old file or the new one. Throws kIo, and kNotFound when there is nothing to load.
void save_snapshot_file(const Writer& writer, std::string_view note, const std::string& path);
SnapshotInfo load_snapshot_file(Writer& writer, const std::shared_ptr<const Tokenizer>& tokenizer,
                                const std::string& path);

}  // namespace allmem
