// Any bytes as model.onnx: read, checked, lowered, and, when that succeeds and is small, run.
#include "runtime/model.h"

#include <memory>
#include <string>
#include <vector>

#include "fuzz.h"
#include "runtime/session.h"

using namespace allmem;

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fuzz::expect_error_or_success([&] {
    std::vector<std::unique_ptr<MappedFile>> pieces;
    pieces.push_back(std::make_unique<MappedFile>("model.onnx", std::as_bytes(std::span(data, size))));
    const auto model = Model::load(std::move(pieces));
    const Program& program = model->program();
    constexpr size_t kSmall = size_t{16} << 20;
    if (program.state_bytes > kSmall || program.arena_bytes > kSmall || program.derived_bytes > kSmall ||
        program.scratch_floats > kSmall || static_cast<size_t>(program.vocab_size) > kSmall) {
      return;
    }
    Session session(model, {.threads = 1});
    std::vector<float> logits(static_cast<size_t>(program.vocab_size));
    for (const int32_t id : {0, 1, 2}) session.forward({&id, 1}, LogitsFor::kLast, logits);
  });
  return 0;
}
