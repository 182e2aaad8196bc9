// Saving and loading a session's memory.
#include "runtime/snapshot.h"

#include "capi/handles.h"
#include "platform/printable.h"

using namespace allmem;
using namespace allmem::capi;

namespace {

std::string_view note_input(const void* note, size_t size) {
  const auto bytes = input(static_cast<const char*>(note), size, "The note");
  return {bytes.data(), bytes.size()};
}

int32_t tell(const SnapshotInfo& facts, allmem_snapshot_info* info, void* note, size_t capacity,
             size_t* count) {
  *info = {.struct_size = sizeof *info,
           .position = facts.position,
           .fingerprint = facts.fingerprint,
           .state_bytes = facts.state_bytes,
           .format = facts.format,
           .frozen = facts.frozen,
           .exact = facts.exact,
           .unfinished = facts.unfinished};
  if (note == nullptr && count == nullptr) return ALLMEM_OK;
  return output(std::as_bytes(std::span(facts.note)), static_cast<std::byte*>(note), capacity, count);
}

}  // namespace

int32_t allmem_session_save(allmem_session* session, const void* note, size_t note_size, void* buffer,
                            size_t capacity, size_t* count) {
  return with_session(session, [&](allmem_session& handle) -> int32_t {
    require(count != nullptr, "`count` is NULL; it receives the size that is needed.");
    const std::string_view text = note_input(note, note_size);
    *count = snapshot_size(*handle.writer, text);
    if (buffer == nullptr || capacity < *count) return too_small(buffer == nullptr ? 0 : capacity, *count);
    save_snapshot(*handle.writer, text, {static_cast<std::byte*>(buffer), *count});
    return ALLMEM_OK;
  });
}

int32_t allmem_session_save_to(allmem_session* session, const void* note, size_t note_size,
                               allmem_write_callback write, void* user_data) {
  return with_session(session, [&](allmem_session& handle) {
    require(write != nullptr, "`write` is NULL; it receives the snapshot.");
    save_snapshot_to(*handle.writer, note_input(note, note_size), [&](std::span<const std::byte> piece) {
      if (call_host(write, static_cast<const void*>(piece.data()), piece.size(), user_data) != 0)
        throw Error(ErrorCode::kIo, "The memory was not saved: its write callback returned an error.");
    });
    return ALLMEM_OK;
  });
}

int32_t allmem_session_save_file(allmem_session* session, const void* note, size_t note_size,
                                 const char* path) {
  return with_session(session, [&](allmem_session& handle) {
    save_snapshot_file(*handle.writer, note_input(note, note_size), path_input(path));
    return ALLMEM_OK;
  });
}

int32_t allmem_session_load(allmem_session* session, const void* snapshot, size_t size) {
  return with_session(session, [&](allmem_session& handle) {
    const auto bytes = input(static_cast<const std::byte*>(snapshot), size, "The snapshot");
    load_snapshot(*handle.writer, handle.shared->text.tokenizer, bytes);
    return ALLMEM_OK;
  });
}

int32_t allmem_session_load_file(allmem_session* session, const char* path) {
  return with_session(session, [&](allmem_session& handle) {
    load_snapshot_file(*handle.writer, handle.shared->text.tokenizer, path_input(path));
    return ALLMEM_OK;
  });
}

int32_t allmem_session_load_from(allmem_session* session, uint64_t size, allmem_read_callback read,
                                 void* user_data) {
  return with_session(session, [&](allmem_session& handle) {
    require(read != nullptr, "`read` is NULL; it gives the snapshot.");
    const auto fill = [&](uint64_t offset, std::span<std::byte> into) {
      if (!into.empty() &&
          call_host(read, static_cast<void*>(into.data()), into.size(), offset, user_data) != 0)
        throw Error(ErrorCode::kIo, "The memory was not loaded: its read callback returned an error.");
    };
    load_snapshot(*handle.writer, handle.shared->text.tokenizer, {.size = size, .read = fill});
    return ALLMEM_OK;
  });
}

int32_t allmem_snapshot_inspect(const void* snapshot, size_t size, allmem_snapshot_info* info, void* note,
                                size_t capacity, size_t* count) {
  return guarded([&]() -> int32_t {
    check_struct(info, "info");
    const auto bytes = input(static_cast<const std::byte*>(snapshot), size, "The snapshot");
    return tell(inspect_snapshot(bytes), info, note, capacity, count);
  });
}

int32_t allmem_snapshot_inspect_file(const char* path, allmem_snapshot_info* info, void* note,
                                     size_t capacity, size_t* count) {
  return guarded([&]() -> int32_t {
    check_struct(info, "info");
    return tell(inspect_snapshot_file(path_input(path)), info, note, capacity, count);
  });
}

int32_t allmem_snapshot_delete_file(const char* path) {
  return guarded([&]() -> int32_t {
    if (delete_snapshot_file(path_input(path))) return ALLMEM_OK;
    throw Error(ErrorCode::kNotFound, printable("There is no memory file '" + std::string(path) + "'."));
  });
}
