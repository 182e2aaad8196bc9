// Symbolic links beside a model: one that stays inside its directory is followed, any other is refused.
#include "hostile_files.h"

using namespace allmem;
using namespace allmem::test;

TEST_CASE("a link is followed only to a plain file inside the model's directory") {
  const TempDir outside, directory;
  outside.write("secret", raw(64));
  directory.write("data", raw(64));
  std::filesystem::create_symlink(outside / "secret", directory / "link");
  std::filesystem::create_symlink(outside.path(), directory / "linked_folder");
  std::filesystem::create_symlink("/dev/zero", directory / "device");
  std::filesystem::create_symlink("loop", directory / "loop");
  std::filesystem::create_symlink("data", directory / "inner_link");
  const auto at = [&](const std::string& location) {
    OnnxBuilder b = good();
    b.external("w", kFloat, {2}, {{"location", location}, {"offset", "0"}, {"length", "8"}});
    return directory.write("model.onnx", b.build());
  };
  const std::pair<const char*, ErrorCode> bad[] = {{"link", ErrorCode::kBadModel},
                                                   {"linked_folder/secret", ErrorCode::kBadModel},
                                                   {"device", ErrorCode::kBadModel},
                                                   {"loop", ErrorCode::kNotFound}};
  for (const auto& [location, code] : bad) {
    CAPTURE(location);
    CHECK(refusal(at(location), code).find("'w'") != std::string::npos);
  }
  const auto model = onnx::read_model(at("inner_link"));
  CHECK(std::string(reinterpret_cast<const char*>(model->initializers[1].data.data()), 8) == raw(8));
}
