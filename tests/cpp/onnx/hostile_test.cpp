// Files that are damaged or mean harm: each is refused with a typed error and one sentence, none crashes.
#include <doctest/doctest.h>

#include <functional>
#include <random>

#include "../onnx_builder.h"
#include "onnx/model.h"
#include "platform/error.h"

using namespace allmem;
using namespace allmem::test;

namespace {

// A valid graph to which a case adds what is wrong.
OnnxBuilder good() {
  OnnxBuilder b;
  b.defaults().input("input_ids", kInt64, {kT}).output("logits", kFloat, {kT, 4});
  b.floats("table", {3, 4}, std::vector<float>(12, 1.0f)).node("Gather", {"table", "input_ids"}, {"logits"});
  return b;
}

std::string refusal(const std::string& path, ErrorCode code) {
  try {
    onnx::read_model(path);
  } catch (const Error& error) {
    CHECK(error.code() == code);
    CHECK(std::string(error.what()).ends_with("."));
    return error.what();
  }
  FAIL("accepted");
  return "";
}

struct Case {
  const char* name;
  std::function<void(OnnxBuilder&)> spoil;
  ErrorCode code;
  const char* says;
};

std::string raw(size_t size) { return std::string(size, '\1'); }

}  // namespace

TEST_CASE("a well-formed graph is read, and its data is viewed where it is mapped") {
  const TempDir directory;
  const auto model = onnx::read_model(directory.write("model.onnx", good().build()));
  CHECK(model->nodes.size() == 1);
  CHECK(model->initializers[0].dims == std::vector<int64_t>{3, 4});
  CHECK(model->initializers[0].data.size() == 48);
}

TEST_CASE("each kind of damage to the graph is named") {
  const Case cases[] = {
      {"initializer without name", [](auto& b) { b.tensor(tensor_bytes("", kFloat, {1}, raw(4))); },
       ErrorCode::kBadModel, "without a name"},
      {"two initializers of one name", [](auto& b) { b.floats("table", {1}, {1}); }, ErrorCode::kBadModel,
       "table"},
      {"too few bytes", [](auto& b) { b.tensor(tensor_bytes("w", kFloat, {2}, raw(4))); },
       ErrorCode::kBadModel, "need 8"},
      {"too many bytes", [](auto& b) { b.tensor(tensor_bytes("w", kFloat, {2}, raw(12))); },
       ErrorCode::kBadModel, "has 12 bytes"},
      {"negative dimension", [](auto& b) { b.tensor(tensor_bytes("w", kFloat, {-2}, raw(8))); },
       ErrorCode::kBadModel, "negative"},
      {"huge dimension", [](auto& b) { b.tensor(tensor_bytes("w", kFloat, {INT64_MAX}, raw(8))); },
       ErrorCode::kBadModel, "impossible"},
      {"overflowing product",
       [](auto& b) {
         b.tensor(tensor_bytes("w", kFloat, {1ll << 32, 1ll << 32, 4}, raw(8)));
       },
       ErrorCode::kBadModel, "impossible"},
      {"product that wraps to the right size",
       [](auto& b) {
         b.tensor(tensor_bytes("w", kFloat, {1ll << 62, 4, 2}, raw(0)));
       },
       ErrorCode::kBadModel, "impossible"},
      {"nine dimensions",
       [](auto& b) { b.tensor(tensor_bytes("w", kFloat, std::vector<int64_t>(9, 1), raw(4))); },
       ErrorCode::kBadModel, "8 dimensions"},
      {"unknown element type", [](auto& b) { b.tensor(tensor_bytes("w", 99, {1}, raw(4))); },
       ErrorCode::kUnsupported, "type 99"},
      {"string tensor", [](auto& b) { b.tensor(tensor_bytes("w", 8, {1}, raw(4))); }, ErrorCode::kUnsupported,
       "type 8"},
      {"sparse initializer", [](auto& b) { b.raw_graph_field(15, ""); }, ErrorCode::kUnsupported, "sparse"},
      {"node without operator", [](auto& b) { b.node("", {"table"}, {"y"}); }, ErrorCode::kBadModel,
       "without an operator"},
      {"node without output",
       [](auto& b) {
         b.node("Add", {"table", "table"}, {});
       },
       ErrorCode::kBadModel, "no output"},
      {"node with an empty output only",
       [](auto& b) {
         b.node("Add", {"table", "table"}, {""});
       },
       ErrorCode::kBadModel, "no output"},
      {"output named like an initializer", [](auto& b) { b.node("Neg", {"logits"}, {"table"}); },
       ErrorCode::kBadModel, "already taken"},
      {"output named like an input", [](auto& b) { b.node("Neg", {"logits"}, {"input_ids"}); },
       ErrorCode::kBadModel, "already taken"},
      {"one output of two nodes", [](auto& b) { b.node("Neg", {"table"}, {"logits"}); }, ErrorCode::kBadModel,
       "already taken"},
      {"input that nothing makes", [](auto& b) { b.node("Neg", {"ghost"}, {"y"}, {}, "", "haunted"); },
       ErrorCode::kBadModel, "haunted"},
      {"node that reads its own output", [](auto& b) { b.node("Neg", {"y"}, {"y"}); }, ErrorCode::kBadModel,
       "cycle"},
      {"cycle of two nodes", [](auto& b) { b.node("Neg", {"b"}, {"a"}).node("Neg", {"a"}, {"b"}); },
       ErrorCode::kBadModel, "cycle"},
      {"attribute without name", [](auto& b) { b.node("Neg", {"table"}, {"y"}, {Attr::i("", 1)}); },
       ErrorCode::kBadModel, "without a name"},
      {"attribute given twice",
       [](auto& b) {
         b.node("Neg", {"table"}, {"y"}, {Attr::i("a", 1), Attr::i("a", 2)});
       },
       ErrorCode::kBadModel, "twice"},
      {"two inputs of one name", [](auto& b) { b.input("input_ids", kInt64, {kT}); }, ErrorCode::kBadModel,
       "two graph inputs"},
      {"input without name", [](auto& b) { b.input("", kInt64, {}); }, ErrorCode::kBadModel,
       "without a name"},
      {"two outputs of one name",
       [](auto& b) {
         b.output("logits", kFloat, {kT, 4});
       },
       ErrorCode::kBadModel, "two graph outputs"},
      {"output that nothing makes", [](auto& b) { b.output("ghost", kFloat, {}); }, ErrorCode::kBadModel,
       "ghost"},
      {"function without name", [](auto& b) { b.function("x", ""); }, ErrorCode::kBadModel, "function"},
      {"node that is no message", [](auto& b) { b.raw_graph_field(1, "\xFF\xFF\xFF"); }, ErrorCode::kBadModel,
       "damaged"},
      {"tensor that is no message", [](auto& b) { b.raw_graph_field(5, "\x0A\xFF\xFF\xFF\xFF\x0F"); },
       ErrorCode::kBadModel, "damaged"},
      {"field number 0", [](auto& b) { b.raw_graph_field(1, std::string("\0\1", 2)); }, ErrorCode::kBadModel,
       "damaged"},
  };
  const TempDir directory;
  for (const Case& c : cases) {
    CAPTURE(c.name);
    OnnxBuilder b = good();
    c.spoil(b);
    const std::string message = refusal(directory.write("model.onnx", b.build()), c.code);
    CAPTURE(message);
    CHECK(message.find(c.says) != std::string::npos);
  }
}

TEST_CASE("external data is read only from plain files inside the model's directory") {
  const TempDir outside, directory;
  outside.write("secret", raw(64));
  directory.write("data", raw(64));
  std::filesystem::create_directory(directory / "folder");
  std::filesystem::create_symlink(outside / "secret", directory / "link");
  std::filesystem::create_symlink(outside.path(), directory / "linked_folder");
  std::filesystem::create_symlink("/dev/zero", directory / "device");
  std::filesystem::create_symlink("loop", directory / "loop");
  std::filesystem::create_symlink("data", directory / "inner_link");
  const std::string up = "../" + std::filesystem::path(outside.path()).filename().string() + "/secret";
  struct Bad {
    std::vector<std::pair<std::string, std::string>> entries;
    ErrorCode code;
  };
  const auto at = [](const std::string& location) {
    return std::vector<std::pair<std::string, std::string>>{{"location", location}};
  };
  const auto range = [](const std::string& offset, const std::string& length) {
    return std::vector<std::pair<std::string, std::string>>{
        {"location", "data"}, {"offset", offset}, {"length", length}};
  };
  const Bad cases[] = {
      {{}, ErrorCode::kBadModel},
      {at(""), ErrorCode::kBadModel},
      {at((outside / "secret").string()), ErrorCode::kBadModel},
      {at(up), ErrorCode::kBadModel},
      {at("folder/../../" + up.substr(3)), ErrorCode::kBadModel},
      {at("./data"), ErrorCode::kBadModel},
      {at("folder//data"), ErrorCode::kBadModel},
      {at("data/"), ErrorCode::kBadModel},
      {at("..\\secret"), ErrorCode::kBadModel},
      {at("C:secret"), ErrorCode::kBadModel},
      {at(std::string("data\0x", 6)), ErrorCode::kBadModel},
      {at("link"), ErrorCode::kBadModel},
      {at("linked_folder/secret"), ErrorCode::kBadModel},
      {at("device"), ErrorCode::kBadModel},
      {at("loop"), ErrorCode::kNotFound},
      {at("missing"), ErrorCode::kNotFound},
      {at("folder"), ErrorCode::kIo},
      {range("-1", "8"), ErrorCode::kBadModel},
      {range("0x10", "8"), ErrorCode::kBadModel},
      {range("1e1", "8"), ErrorCode::kBadModel},
      {range("60", "8"), ErrorCode::kBadModel},
      {range("65", "8"), ErrorCode::kBadModel},
      {range("18446744073709551615", "8"), ErrorCode::kBadModel},
      {range("18446744073709551616", "8"), ErrorCode::kBadModel},
      {range("0", "4"), ErrorCode::kBadModel},
      {range("0", "64"), ErrorCode::kBadModel},
  };
  for (const Bad& bad : cases) {
    OnnxBuilder b = good();
    b.external("w", kFloat, {2}, bad.entries);
    CAPTURE(bad.entries.empty() ? "" : bad.entries[0].second);
    const std::string message = refusal(directory.write("model.onnx", b.build()), bad.code);
    CHECK((bad.code == ErrorCode::kIo || message.find("'w'") != std::string::npos));
  }
  // What is right: an offset that floats may not have (a copy is made), and a link that stays inside.
  for (const auto& entries : {range("3", "8"), at("inner_link")}) {
    OnnxBuilder b = good();
    b.external("w", kFloat, {2}, entries);
    const auto model = onnx::read_model(directory.write("model.onnx", b.build()));
    CHECK(reinterpret_cast<uintptr_t>(model->initializers[1].data.data()) % alignof(float) == 0);
    CHECK(std::string(reinterpret_cast<const char*>(model->initializers[1].data.data()), 8) == raw(8));
  }
}

TEST_CASE("typed data fields read like raw data") {
  const TempDir directory;
  std::string floats, ints;
  {
    protozero::pbf_writer w(floats);
    w.add_int64(1, 2);
    w.add_int32(2, kFloat);
    const float values[] = {1.5f, -2.0f};
    w.add_packed_float(4, std::begin(values), std::end(values));
    w.add_string(8, "f");
    protozero::pbf_writer v(ints);
    v.add_int64(1, 2);
    v.add_int32(2, kInt64);
    const int64_t numbers[] = {-7, int64_t{1} << 40};
    v.add_packed_int64(7, std::begin(numbers), std::end(numbers));
    v.add_string(8, "i");
  }
  const auto model =
      onnx::read_model(directory.write("model.onnx", good().tensor(floats).tensor(ints).build()));
  CHECK(reinterpret_cast<const float*>(model->initializers[1].data.data())[1] == -2.0f);
  CHECK(reinterpret_cast<const int64_t*>(model->initializers[2].data.data())[1] == int64_t{1} << 40);
}

TEST_CASE("no file, an empty file, a directory and noise are refused") {
  const TempDir directory;
  refusal((directory / "missing").string(), ErrorCode::kNotFound);
  refusal(directory.path(), ErrorCode::kIo);
  refusal(directory.write("empty", ""), ErrorCode::kBadModel);
  std::mt19937 random(5);
  for (int round = 0; round < 200; ++round) {
    std::string noise(1 + random() % 300, '\0');
    for (char& byte : noise) byte = static_cast<char>(random());
    refusal(directory.write("noise", noise), ErrorCode::kBadModel);
  }
}
