// Any bytes as a snapshot of a small model (the checksum is not looked at in this build): refused with the
// session unchanged, or loaded, and then the session must run.
#include "runtime/snapshot.h"

#include <cstdlib>
#include <vector>

#include "../cpp/tiny_model.h"
#include "fuzz.h"

using namespace allmem;

namespace {

std::shared_ptr<const Model> tiny_model() {
  static const std::string onnx = test::TinyModel().builder().build();
  std::vector<std::unique_ptr<MappedFile>> pieces;
  pieces.push_back(std::make_unique<MappedFile>("model.onnx", std::as_bytes(std::span(onnx))));
  return Model::load(std::move(pieces));
}

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static Writer writer(std::make_unique<Session>(tiny_model(), SessionOptions{.threads = 1}));
  static const auto tokenizer = Tokenizer::from_json(
      R"({"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false},"decoder":{"type":"ByteLevel"},
"model":{"vocab":{"a":0,"b":1,"c":2,"Ã":3,"©":4},"merges":[]}})",
      "tokenizer.json");
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
