// Any bytes as a snapshot of a small model (the checksum is not looked at in this build): refused with the
// session unchanged, or loaded, and then the session must run.
#include "runtime/snapshot.h"

#include <algorithm>
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
  static Session session(tiny_model(), {.threads = 1});
  static std::vector<float> logits(static_cast<size_t>(session.model().info().vocab_size));
  const auto before = session.state_memory();
  static std::vector<std::byte> copy;
  copy.assign(before.begin(), before.end());
  const uint64_t position = session.position();
  try {
    load_snapshot(session, std::as_bytes(std::span(data, size)));
    session.freeze(false);
    const int32_t id = 1;
    session.forward({&id, 1}, LogitsFor::kLast, logits);
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kBadSnapshot &&
        (session.position() != position || !std::ranges::equal(session.state_memory(), copy))) {
      std::abort();
    }
  }
  session.reset();
  return 0;
}
