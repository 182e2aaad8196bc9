// Loading models: what is wrong is said in a sentence; damaged files never crash, neither at load nor when
// run.
#include "runtime/model.h"

#include <doctest/doctest.h>

#include <map>
#include <random>

#include "../tiny_model.h"
#include "platform/error.h"
#include "runtime/session.h"

using namespace allmem;
using namespace allmem::test;

namespace {

std::string refusal(const std::string& path, ErrorCode code) {
  try {
    Model::load(path);
  } catch (const Error& error) {
    const std::string message = error.what();
    CAPTURE(message);
    CHECK(error.code() == code);
    CHECK(std::string(error.what()).ends_with("."));
    return error.what();
  }
  FAIL("accepted");
  return "";
}

enum class Fate { kRefused, kFailed, kRan };

// Loads, and runs when that works and takes little memory. Any Error is fine.
Fate fate_of(const std::string& path) {
  Fate fate = Fate::kRefused;
  try {
    const auto model = Model::load(path);
    fate = Fate::kFailed;
    if (model->info().state_bytes > (1u << 20)) return fate;
    Session session(model, {.threads = 1});
    std::vector<float> row(static_cast<size_t>(model->info().vocab_size));
    if (row.size() > (1u << 20)) return fate;
    session.forward(std::vector<int32_t>{0, 0, 0}, LogitsFor::kLast, row);
    fate = Fate::kRan;
  } catch (const Error&) {
  }
  return fate;
}

TinyConfig small() {
  return {.vocab = 5,
          .width = 4,
          .heads = 2,
          .kv_heads = 1,
          .dim = 2,
          .window = 3,
          .sinks = 1,
          .hidden = 2,
          .chunk = 2};
}

}  // namespace

TEST_CASE("a model says what it is") {
  const TempDir directory;
  const TinyModel tiny;
  directory.write("model.onnx", tiny.builder().metadata("allmem.quantization", "int\xFF").build());
  const auto model = Model::load(directory.path());
  CHECK(model->info().quantization == "int?");  // valid UTF-8, whatever the file says
  CHECK(model->info().vocab_size == tiny.config.vocab);
  CHECK(model->info().window == tiny.config.window);
  CHECK(model->info().chunk == tiny.config.chunk);
  CHECK(model->info().states.size() == 12);
  CHECK(model->info().states[0].name == "attention.keys.state");
  CHECK(model->info().states[0].shape == std::vector<int64_t>{2, 9, 8});
}

TEST_CASE("a missing path and a directory without a model are not found") {
  const TempDir directory;
  refusal(directory / "nothing", ErrorCode::kNotFound);
  refusal("", ErrorCode::kNotFound);
  refusal(std::string("a\0b", 3), ErrorCode::kNotFound);
  refusal(directory.path(), ErrorCode::kNotFound);
}

TEST_CASE("a truncated model is refused at every 97th byte") {
  const TempDir directory;
  const std::string whole = TinyModel(small()).builder().build();
  for (size_t size = 0; size < whole.size(); size += 97) {
    CAPTURE(size);
    CHECK_THROWS_AS(Model::load(directory.write("model.onnx", whole.substr(0, size))), Error);
  }
}

TEST_CASE("no flipped bit crashes the loader or a run") {
  const TempDir directory;
  const std::string whole = TinyModel(small()).builder().build();
  std::mt19937 random(11);
  std::map<Fate, int> fates;
  for (int round = 0; round < 4000; ++round) {
    std::string damaged = whole;
    for (unsigned flips = 1 + random() % 3; flips > 0; --flips)
      damaged[random() % damaged.size()] ^= static_cast<char>(1u << random() % 8);
    ++fates[fate_of(directory.write("model.onnx", damaged))];
  }
  CHECK(fates[Fate::kRefused] > 100);
  CHECK(fates[Fate::kRan] > 100);
}

TEST_CASE("truncated external data is refused, and damaged external data runs without a crash") {
  const TempDir directory;
  OnnxBuilder b;
  b.defaults().input("input_ids", kInt64, {kT}).output("logits", kFloat, {kT, 4});
  b.external("table", kFloat, {4, 4}, {{"location", "model.onnx.data"}, {"offset", "0"}, {"length", "64"}});
  b.node("Gather", {"table", "input_ids"}, {"logits"});
  directory.write("model.onnx", b.build());
  for (const size_t size : {0, 1, 63}) {
    directory.write("model.onnx.data", std::string(size, 'x'));
    refusal(directory.path(), ErrorCode::kBadModel);
  }
  directory.write("model.onnx.data", std::string(64, '\xFF'));  // NaN
  CHECK(fate_of(directory.path()) == Fate::kFailed);
}
