// Any bytes as a snapshot of a small model (the checksum is not looked at in this build): refused with the
// session unchanged, or loaded, and then the session must run.
#include "runtime/snapshot.h"

#include <cstdlib>
#include <vector>

#include "fuzz.h"
#include "small_writer.h"

using namespace allmem;

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static Writer writer = fuzz::small_writer();
  static const auto tokenizer = fuzz::small_tokenizer();
  static std::vector<std::byte> before, after;
  before.resize(snapshot_size(writer, ""));
  save_snapshot(writer, "", before);
  try {
    load_snapshot(writer, tokenizer, std::as_bytes(std::span(data, size)));
    writer.session().freeze(false);
    if (writer.unfinished()) {
      writer.next();
    } else {
      const int32_t id = 1;
      writer.read({&id, 1}, LogitsFor::kLast, {});
    }
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kBadSnapshot) {
      after.resize(snapshot_size(writer, ""));
      save_snapshot(writer, "", after);
      if (before != after) std::abort();
    }
  }
  writer.reset();
  return 0;
}
