// Loading models: what is wrong is said in a sentence; damaged files never crash, neither at load nor when
// run.
#include "runtime/model.h"

#include <doctest/doctest.h>

#include <functional>
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

// Loads, and runs when that works. Any Error is fine.
void survive(const std::string& path) {
  try {
    const auto model = Model::load(path);
    if (model->info().state_bytes > (1u << 20)) return;
    Session session(model, {.threads = 1});
    std::vector<float> row(static_cast<size_t>(model->info().vocab_size));
    if (row.size() > (1u << 20)) return;
    session.forward(std::vector<int32_t>{0, 0, 0}, LogitsFor::kLast, row);
  } catch (const Error&) {
  }
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

// A minimal valid graph: h [T, 4] is the embedding, and a case makes `logits` from it.
OnnxBuilder embedding() {
  OnnxBuilder b;
  b.defaults()
      .input("input_ids", kInt64, {kT})
      .input("position", kInt64, {})
      .output("logits", kFloat, {kT, 4});
  b.floats("table", {4, 4}, std::vector<float>(16, 1.0f)).node("Gather", {"table", "input_ids"}, {"h"});
  return b;
}

struct Case {
  const char* name;
  std::function<void(OnnxBuilder&)> spoil;
  ErrorCode code;
  const char* says;
};

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
  refusal((directory / "nothing").string(), ErrorCode::kNotFound);
  refusal("", ErrorCode::kNotFound);
  refusal(std::string("a\0b", 3), ErrorCode::kNotFound);
  refusal(directory.path(), ErrorCode::kNotFound);
}

TEST_CASE("a graph that this runtime cannot run is refused with the node and the reason") {
  const auto bad = ErrorCode::kBadModel, unsupported = ErrorCode::kUnsupported;
  const std::vector<Attr> t{Attr::i("transB", 1)};
  const Case cases[] = {
      {"unknown operator", [](auto& b) { b.node("Frobnicate", {"h"}, {"logits"}, {}, "", "odd one"); },
       unsupported, "odd one"},
      {"unknown domain",
       [](auto& b) {
         b.node("Add", {"h", "h"}, {"logits"}, {}, "acme");
       },
       unsupported, "acme::Add"},
      {"function of the file",
       [](auto& b) { b.function("acme", "F").node("F", {"h"}, {"logits"}, {}, "acme"); }, unsupported,
       "onnxruntime"},
      {"unknown attribute", [](auto& b) { b.node("Neg", {"h"}, {"logits"}, {Attr::i("extra", 1)}); },
       unsupported, "extra"},
      {"attribute of a wrong type",
       [](auto& b) { b.node("Softmax", {"h"}, {"logits"}, {Attr::f("axis", 1)}); }, bad, "axis"},
      {"too few inputs", [](auto& b) { b.node("Add", {"h"}, {"logits"}); }, bad, "inputs"},
      {"absent input",
       [](auto& b) {
         b.node("Add", {"h", ""}, {"logits"});
       },
       bad, "lacks"},
      {"shapes that do not broadcast",
       [](auto& b) {
         b.floats("w", {3}, {1, 2, 3}).node("Add", {"h", "w"}, {"logits"});
       },
       bad, "broadcast"},
      {"wrong dtype", [](auto& b) { b.node("Neg", {"input_ids"}, {"logits"}); }, bad, "int64"},
      {"wrong rank",
       [&](auto& b) {
         b.floats("w", {4}, {1, 2, 3, 4}).node("Gemm", {"h", "w"}, {"logits"}, t);
       },
       bad, "matrix"},
      {"wrong inner size",
       [&](auto& b) {
         b.floats("w", {4, 3}, std::vector<float>(12)).node("Gemm", {"h", "w"}, {"logits"}, t);
       },
       bad, "rows of 3"},
      {"Gemm with alpha",
       [](auto& b) {
         b.floats("w", {4, 4}, std::vector<float>(16))
             .node("Gemm", {"h", "w"}, {"logits"}, {Attr::i("transB", 1), Attr::f("alpha", 2)});
       },
       unsupported, "alpha"},
      {"tokens in two dimensions",
       [](auto& b) {
         b.node("Transpose", {"h"}, {"ht"}, {Attr::ints("perm", {1, 0})})
             .node("MatMul", {"h", "ht"}, {"tt"})
             .node("Neg", {"h"}, {"logits"});
       },
       unsupported, "two dimensions"},
      {"reshape that moves tokens",
       [](auto& b) {
         b.ints("s", {-1, 8}).node("Reshape", {"h", "s"}, {"logits"});
       },
       bad, "shape"},
      {"reshape with two open dimensions",
       [](auto& b) {
         b.ints("s", {-1, -1}).node("Reshape", {"h", "s"}, {"logits"});
       },
       bad, "two dimensions open"},
      {"reshape to a computed shape",
       [](auto& b) {
         b.node("Reshape", {"h", "input_ids"}, {"logits"});
       },
       unsupported, "constant"},
      {"reshape to a huge shape",
       [](auto& b) {
         b.ints("s", {1 << 28, 1 << 28, 1 << 28, -1}).node("Reshape", {"h", "s"}, {"logits"});
       },
       bad, "shape"},
      {"axis beyond the rank", [](auto& b) { b.node("Softmax", {"h"}, {"logits"}, {Attr::i("axis", 7)}); },
       bad, "axis 7"},
      {"perm that is none",
       [](auto& b) {
         b.node("Transpose", {"h"}, {"logits"}, {Attr::ints("perm", {0, 0})});
       },
       bad, "perm"},
      {"split that does not add up",
       [](auto& b) {
         b.ints("s", {1, 1}).node("Split", {"h", "s"}, {"a", "logits"}, {Attr::i("axis", 1)});
       },
       bad, "add up"},
      {"constants that would fill memory",
       [](auto& b) {
         b.floats("c", {20000, 1}, std::vector<float>(20000))
             .floats("r", {1, 20000}, std::vector<float>(20000))
             .node("Add", {"c", "r"}, {"x"})
             .node("Neg", {"h"}, {"logits"});
       },
       unsupported, "256 MiB"},
      {"quantised rows not divisible by the block",
       [](auto& b) {
         b.bytes("w", {4, 1, 8}, std::vector<uint8_t>(32))
             .floats("s", {4}, std::vector<float>(4))
             .node("MatMulNBits", {"h", "w", "s"}, {"logits"},
                   {Attr::i("K", 4), Attr::i("N", 4), Attr::i("block_size", 16)}, "com.microsoft");
       },
       unsupported, "blocks"},
      {"quantised without K",
       [](auto& b) {
         b.bytes("w", {4, 1, 8}, std::vector<uint8_t>(32))
             .node("MatMulNBits", {"h", "w", "table"}, {"logits"}, {}, "com.microsoft");
       },
       bad, "'K'"},
      {"logits of a wrong shape",
       [](auto& b) {
         b.ints("s", {-1, 2, 2}).node("Neg", {"h"}, {"n"}).node("Reshape", {"n", "s"}, {"logits"});
       },
       bad, "logits"},
      {"logits that mix tokens",
       [](auto& b) {
         b.node("Transpose", {"h"}, {"ht"}, {Attr::ints("perm", {1, 0})})
             .node("Neg", {"ht"}, {"n"})
             .node("Transpose", {"n"}, {"logits"}, {Attr::ints("perm", {1, 0})});
       },
       unsupported, "row by row"},
      {"state without output",
       [](auto& b) { b.input("a.state", kFloat, {2}).node("Neg", {"h"}, {"logits"}); }, bad, "a.state"},
      {"state read by an ordinary node",
       [](auto& b) {
         b.input("a.state", kFloat, {4}).node("Add", {"h", "a.state"}, {"logits"});
       },
       bad, "stateful"},
      {"state output that updates nothing",
       [](auto& b) {
         b.output("a.state.out", kFloat, {kT, 4})
             .node("Neg", {"h"}, {"a.state.out"})
             .node("Neg", {"h"}, {"logits"});
       },
       bad, "a.state.out"},
      {"more dimensions than an operator has room for",
       [](auto& b) {
         b.floats("deep", {1, 1, 1, 1, 1, 1, 1, 2}, {1, 2});
         b.tensor(tensor_bytes("indices", kInt64, {1, 1, 1}, std::string(8, '\0')));
         b.node("Gather", {"deep", "indices"}, {"deeper"}).node("Transpose", {"deeper"}, {"logits"});
       },
       unsupported, "10 dimensions"},
      {"state of symbolic shape",
       [](auto& b) { b.input("a.state", kFloat, {kT}).node("Neg", {"h"}, {"logits"}); }, bad, "fixed"},
      {"state of integers", [](auto& b) { b.input("a.state", kInt64, {2}).node("Neg", {"h"}, {"logits"}); },
       bad, "float32"},
      {"state larger than any memory",
       [](auto& b) {
         b.input("a.state", kFloat, {1ll << 40, 1 << 20}).node("Neg", {"h"}, {"logits"});
       },
       bad, "impossible"},
      {"unknown input", [](auto& b) { b.input("mask", kFloat, {kT}).node("Neg", {"h"}, {"logits"}); },
       unsupported, "mask"},
      {"unknown output",
       [](auto& b) {
         b.node("Neg", {"h"}, {"logits"}).node("Exp", {"h"}, {"e"}).output("e", kFloat, {kT, 4});
       },
       unsupported, "'e'"},
  };
  const TempDir directory;
  for (const Case& c : cases) {
    CAPTURE(c.name);
    OnnxBuilder b = embedding();
    c.spoil(b);
    const std::string message = refusal(directory.write("model.onnx", b.build()), c.code);
    CAPTURE(message);
    CHECK(message.find(c.says) != std::string::npos);
  }
}

TEST_CASE("a file of another format, operator set or kind is refused") {
  const TempDir directory;
  const auto graph = [](OnnxBuilder b) {
    return b.input("input_ids", kInt64, {kT})
        .output("logits", kFloat, {kT, 4})
        .floats("table", {4, 4}, std::vector<float>(16))
        .node("Gather", {"table", "input_ids"}, {"logits"})
        .build();
  };
  refusal(directory.write("a", graph(OnnxBuilder().opset("", 23))), ErrorCode::kBadModel);
  refusal(directory.write("b", graph(OnnxBuilder().opset("", 23).metadata("allmem.format", "2"))),
          ErrorCode::kUnsupported);
  refusal(directory.write("c", graph(OnnxBuilder().opset("", 12).metadata("allmem.format", "1"))),
          ErrorCode::kUnsupported);
  refusal(directory.write(
              "d", graph(OnnxBuilder().opset("", 23).opset("allmem", 2).metadata("allmem.format", "1"))),
          ErrorCode::kUnsupported);
  refusal(directory.write("e", graph(OnnxBuilder().metadata("allmem.format", "1"))), ErrorCode::kBadModel);
  refusal(
      directory.write(
          "f",
          graph(OnnxBuilder().opset("", 23).metadata("allmem.format", "1").metadata("allmem.window", "-4"))),
      ErrorCode::kBadModel);
}

TEST_CASE("a stateful operator with a wrong state, attribute or position is refused") {
  const TinyModel tiny(small());
  const TempDir directory;
  for (auto [heads, dim, window] :
       {std::array<int64_t, 3>{3, 2, 3}, {2, 3, 3}, {2, 2, 4}, {2, 2, 0}, {0, 2, 3}, {2, 2, 1ll << 40}}) {
    TinyModel wrong = tiny;
    wrong.config.heads = heads;
    wrong.config.dim = dim;
    wrong.config.window = window;
    // The declared state and the projections keep the old sizes where those differ.
    OnnxBuilder b;
    try {
      b = wrong.builder();
    } catch (...) {
      continue;
    }
    if (window == 4) continue;  // consistent with itself
    refusal(directory.write("model.onnx", b.build()), ErrorCode::kBadModel);
  }
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
  for (int round = 0; round < 4000; ++round) {
    std::string damaged = whole;
    for (unsigned flips = 1 + random() % 3; flips > 0; --flips)
      damaged[random() % damaged.size()] ^= static_cast<char>(1u << random() % 8);
    survive(directory.write("model.onnx", damaged));
  }
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
  survive(directory.path());
}
