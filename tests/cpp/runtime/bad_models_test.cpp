// Every hand-made bad model is refused with a typed error and one sentence that names what is wrong.
#include "../bad_models.h"

#include <doctest/doctest.h>

#include "platform/error.h"
#include "platform/physical_memory.h"
#include "runtime/model.h"
#include "snapshot_fixture.h"

using namespace allmem;
using namespace allmem::test;

namespace {

// A graph with a quantised matrix over h [T, width], which makes the logits, and nothing else yet.
OnnxBuilder with_quantised_logits(int64_t width) {
  const auto at = [](int64_t size) { return static_cast<size_t>(size); };
  OnnxBuilder b;
  b.defaults().input("input_ids", kInt64, {kT}).input("position", kInt64, {});
  b.output("logits", kFloat, {kT, 4});
  b.floats("table", {4, width}, std::vector<float>(at(4 * width)))
      .node("Gather", {"table", "input_ids"}, {"h"});
  b.bytes("codes", {4, width / 64, 32}, std::vector<uint8_t>(at(4 * width / 2)));
  b.floats("scales", {4, width / 64}, std::vector<float>(at(4 * width / 64)));
  return b.node("MatMulNBits", {"h", "codes", "scales"}, {"logits"},
                {Attr::i("K", width), Attr::i("N", 4), Attr::i("bits", 4), Attr::i("block_size", 64)},
                "com.microsoft");
}

std::string refusal(const std::string& bytes) {
  const TempDir directory;
  try {
    Model::load(directory.write("model.onnx", bytes));
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::kBadModel);
    return error.what();
  }
  return "none";
}

// Heads with a channel and a hidden channel each, which the 8-bit copies fill up to groups of 64.
std::string narrow_memories(int layers) {
  const int64_t heads = 1 << 17;
  OnnxBuilder b = with_quantised_logits(heads);
  b.floats("norm", {heads, 1}, std::vector<float>(static_cast<size_t>(heads), 1.0f));
  for (int layer = 0; layer < layers; ++layer) {
    std::vector<std::string> inputs{"h", "h", "h", "h", "h", "norm", "norm", "norm"};
    std::vector<std::string> outputs{"m" + std::to_string(layer)};
    for (int state = 0; state < 10; ++state) {
      const std::vector<int64_t> shape = state < 9 ? std::vector<int64_t>{heads, 1, 1} : std::vector{heads};
      inputs.push_back(std::to_string(layer) + "." + std::to_string(state) + ".state");
      outputs.push_back(inputs.back() + ".out");
      b.input(inputs.back(), kFloat, shape).output(outputs.back(), kFloat, shape);
    }
    inputs.push_back("position");
    b.node("TestTimeMemory", inputs, outputs,
           {Attr::i("num_heads", heads), Attr::i("num_kv_heads", heads), Attr::i("head_dim", 1),
            Attr::i("hidden", 1), Attr::i("chunk", 1)},
           "allmem");
  }
  return b.build();
}

const std::string kLimit = kWideAddresses ? "more than 64 GiB" : "more than 1 GiB";

}  // namespace

TEST_CASE("what the bad models are made from loads") {
  const TempDir directory;
  for (const std::string& good : {complete().build(), without_logits().node("Neg", {"h"}, {"logits"}).build(),
                                  Attention{}.build(), Memory{}.build(), Quantised{}.build()}) {
    CHECK_NOTHROW(Model::load(directory.write("model.onnx", good)));
  }
}

TEST_CASE("every bad model is refused with a sentence that says what is wrong, for any arithmetic") {
  const TempDir directory;
  const std::vector<BadModel> models = bad_models();
  CHECK(models.size() >= 40);
  for (const BadModel& bad : models) {
    CAPTURE(bad.what);
    directory.write("model.onnx", bad.bytes);
    for (const Precision precision : {Precision::kFast, Precision::kExact}) {
      std::string message;
      try {
        Model::load(directory.path(), precision);
      } catch (const Error& error) {
        message = error.what();
        CHECK(error.code() ==
              (bad.refusal == Refusal::kBad ? ErrorCode::kBadModel : ErrorCode::kUnsupported));
      }
      CAPTURE(message);
      CHECK(message.find(bad.says) != std::string::npos);
      CHECK(message.ends_with("."));
    }
  }
}

TEST_CASE("keys that take more than any session may are refused, also where 32 bits do not count them") {
  const int64_t heads = 328'992;  // with 192 slots of 68 bytes each, just above 2^32 bytes
  const std::vector<int64_t> shape{heads, 1, 2};
  OnnxBuilder b = with_quantised_logits(2 * heads);
  for (int layer = 0; layer < (kWideAddresses ? 16 : 1); ++layer) {
    std::vector<std::string> inputs{"h", "h", "h"}, outputs{"a" + std::to_string(layer)};
    for (const char* kind : {"k", "v"}) {
      inputs.push_back(kind + std::to_string(layer) + ".state");
      outputs.push_back(inputs.back() + ".out");
      b.input(inputs.back(), kFloat, shape).output(outputs.back(), kFloat, shape);
    }
    inputs.push_back("position");
    b.node("SlidingWindowAttention", inputs, outputs,
           {Attr::i("num_heads", heads), Attr::i("num_kv_heads", heads), Attr::i("head_dim", 2),
            Attr::i("window", 1), Attr::i("sinks", 0), Attr::floats("rope_inv_freq", {1.0f})},
           "allmem");
  }
  const std::string message = refusal(b.build());
  CHECK_MESSAGE(message.find("the states need " + kLimit) != std::string::npos, message);
}

TEST_CASE("what operators keep beside their states is bounded, and counts for the memory that there is") {
  const std::string message = refusal(narrow_memories(64));
  CHECK_MESSAGE(message.find("beside their states " + kLimit) != std::string::npos, message);
  if (!kWideAddresses || physical_memory() == 0) return;
  const TempDir directory;
  const auto model = Model::load(directory.write("model.onnx", narrow_memories(56)));
  const Program& program = model->program();
  CHECK(program.derived_bytes > 5 * program.state_bytes);
  if (physical_memory() >= program.derived_bytes) return;
  CHECK(snapshots::message_of([&] { Session(model, {.threads = 1}); }, ErrorCode::kOutOfMemory)
            .find("but this machine has") != std::string::npos);
}
