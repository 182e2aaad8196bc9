// Files that are damaged or mean harm: each is refused with a typed error and one sentence, none crashes.
#include <doctest/doctest.h>

#include <random>

#include "hostile_files.h"

using namespace allmem;
using namespace allmem::test;

TEST_CASE("a well-formed graph is read, and its data is viewed where it is mapped") {
  const TempDir directory;
  const auto model = onnx::read_model(directory.write("model.onnx", good().build()));
  CHECK(model->nodes.size() == 1);
  CHECK(model->initializers[0].dims == std::vector<int64_t>{3, 4});
  CHECK(model->initializers[0].data.size() == 48);
}

TEST_CASE("external data is read only from plain files inside the model's directory") {
  const TempDir outside, directory;
  outside.write("secret", raw(64));
  directory.write("data", raw(64));
  std::filesystem::create_directory(directory / "folder");
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
      {at(outside / "secret"), ErrorCode::kBadModel},
      {at(up), ErrorCode::kBadModel},
      {at("folder/../../" + up.substr(3)), ErrorCode::kBadModel},
      {at("."), ErrorCode::kBadModel},
      {at("data/."), ErrorCode::kBadModel},
      {at("./../data"), ErrorCode::kBadModel},
      {at("folder//data"), ErrorCode::kBadModel},
      {at("data/"), ErrorCode::kBadModel},
      {at("..\\secret"), ErrorCode::kBadModel},
      {at("C:secret"), ErrorCode::kBadModel},
      {at(std::string("data\0x", 6)), ErrorCode::kBadModel},
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
  // What is right: an offset that floats may not have. A copy is made.
  OnnxBuilder b = good();
  b.external("w", kFloat, {2}, range("3", "8"));
  const auto model = onnx::read_model(directory.write("model.onnx", b.build()));
  CHECK(reinterpret_cast<uintptr_t>(model->initializers[1].data.data()) % alignof(float) == 0);
  CHECK(std::string(reinterpret_cast<const char*>(model->initializers[1].data.data()), 8) == raw(8));
}

TEST_CASE("an offset beyond 4 GiB is a number wherever this runs") {
  const TempDir directory;
  directory.write("data", raw(64));
  OnnxBuilder b = good();
  b.external("w", kFloat, {2}, {{"location", "data"}, {"offset", "4294967296"}});
  CHECK(refusal(directory.write("model.onnx", b.build()), ErrorCode::kBadModel).find("has only 64 bytes") !=
        std::string::npos);
}

TEST_CASE(
    "tensors that share data which must be copied share the copy, and copies are no larger than the files") {
  const TempDir directory;
  directory.write("data", raw(4096));
  OnnxBuilder b = good();
  const auto add = [&](const std::string& name, int offset) {
    b.external(name, kFloat, {512}, {{"location", "data"}, {"offset", std::to_string(offset)}});
  };
  for (int i = 0; i < 100; ++i) add("tied" + std::to_string(i), 1);
  add("other", 2047);
  const auto model = onnx::read_model(directory.write("model.onnx", b.build()));
  const auto data = [&](size_t i) { return model->initializers[i].data.data(); };
  CHECK(data(1) == data(100));
  CHECK(data(1) != data(101));
  for (int i = 0; i < 100; ++i) add("overlapping" + std::to_string(i), 1 + 4 * (i + 1));
  CHECK(
      refusal(directory.write("model.onnx", b.build()), ErrorCode::kBadModel).find("larger than the files") !=
      std::string::npos);
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
  refusal(directory / "missing", ErrorCode::kNotFound);
  refusal(directory.path(), ErrorCode::kIo);
  refusal(directory.write("empty", ""), ErrorCode::kBadModel);
  std::mt19937 random(5);
  for (int round = 0; round < 200; ++round) {
    std::string noise(1 + random() % 300, '\0');
    for (char& byte : noise) byte = static_cast<char>(random());
    refusal(directory.write("noise", noise), ErrorCode::kBadModel);
  }
}
