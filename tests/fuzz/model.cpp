// Any bytes as model.onnx: read, checked, lowered for fast and for exact arithmetic, and, when that succeeds
// and is small, run, both a block of tokens and single ones.
#include "runtime/model.h"

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "fuzz.h"
#include "protobuf_mutator.h"
#include "runtime/session.h"

using namespace allmem;

namespace {

void load_and_run(std::span<const std::byte> onnx, Precision precision) {
  std::vector<std::unique_ptr<MappedFile>> pieces;
  pieces.push_back(std::make_unique<MappedFile>("model.onnx", onnx));
  const auto model = Model::load(std::move(pieces), precision);
  const Program& program = model->program();
  constexpr size_t kSmall = size_t{16} << 20;
  if (program.state_bytes > kSmall || program.arena_bytes > kSmall || program.derived_bytes > kSmall ||
      program.scratch_floats > kSmall || static_cast<size_t>(program.vocab_size) > kSmall) {
    return;
  }
  Session session(model, {.threads = 1});
  std::vector<float> logits(static_cast<size_t>(program.vocab_size));
  const std::vector<int32_t> block = {0, 1, 2, 1, 0};
  session.forward(block, LogitsFor::kLast, logits);
  for (const int32_t id : {1, 2}) session.forward({&id, 1}, LogitsFor::kLast, logits);
}

}  // namespace

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
  const std::string_view message(reinterpret_cast<const char*>(data), size);
  const std::string result =
      fuzz::ProtobufMutator(seed).mutated(message, max_size - std::min(size, max_size));
  if (result.size() > max_size) return 0;
  std::ranges::copy(result, reinterpret_cast<char*>(data));
  return result.size();
}

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  for (const Precision precision : {Precision::kFast, Precision::kExact}) {
    fuzz::expect_error_or_success([&] { load_and_run(std::as_bytes(std::span(data, size)), precision); });
  }
  return 0;
}
