// Symbolic links beside a model: whoever may write to its directory may put its files elsewhere.
#include "hostile_files.h"

using namespace allmem;
using namespace allmem::test;

TEST_CASE("links are followed to plain files, as hub caches, Bazel and Nix lay models out") {
  const TempDir store, directory;
  store.write("data", raw(64));
  std::filesystem::create_symlink(store / "data", directory / "link");
  std::filesystem::create_symlink(store.path(), directory / "folder");
  std::filesystem::create_symlink("/dev/zero", directory / "device");
  std::filesystem::create_symlink("loop", directory / "loop");
  const auto at = [&](const std::string& location) {
    OnnxBuilder b = good();
    b.external("w", kFloat, {2}, {{"location", location}, {"offset", "0"}, {"length", "8"}});
    return directory.write("model.onnx", b.build());
  };
  for (const char* location : {"link", "./link", "folder/data", "./folder/./data"}) {
    CAPTURE(location);
    const auto model = onnx::read_model(at(location));
    CHECK(std::string(reinterpret_cast<const char*>(model->initializers[1].data.data()), 8) == raw(8));
  }
  refusal(at("device"), ErrorCode::kIo);
  refusal(at("loop"), ErrorCode::kIo);
  refusal(at("folder/../data"), ErrorCode::kBadModel);
  // The model's file may itself be a link: its data lies beside the link.
  at("link");
  std::filesystem::rename(directory / "model.onnx", store / "blob");
  std::filesystem::create_symlink(store / "blob", directory / "model.onnx");
  CHECK(onnx::read_model(directory / "model.onnx")->initializers[1].data.size() == 8);
}
