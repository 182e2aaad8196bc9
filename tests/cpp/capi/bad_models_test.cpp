// The same bad models as an app meets them: a status, a sentence, and no model.
#include "../bad_models.h"

#include <doctest/doctest.h>

#include "allmem/allmem.h"

using namespace allmem::test;

TEST_CASE("every bad model is refused by the C API with its status and a sentence") {
  const TempDir directory;
  for (const BadModel& bad : bad_models()) {
    CAPTURE(bad.what);
    directory.write("model.onnx", bad.bytes);
    const allmem_file piece = {"model.onnx", bad.bytes.data(), bad.bytes.size(), -1, 0};
    for (const bool from_memory : {false, true}) {
      allmem_model* model = nullptr;
      const int32_t status = from_memory ? allmem_model_load_memory(&piece, 1, nullptr, &model)
                                         : allmem_model_load(directory.path().c_str(), nullptr, &model);
      const std::string message = allmem_last_error();
      CAPTURE(message);
      CHECK(status == (bad.refusal == Refusal::kBad ? ALLMEM_BAD_MODEL : ALLMEM_UNSUPPORTED));
      CHECK(message.find(bad.says) != std::string::npos);
      CHECK(message.ends_with("."));
      CHECK(model == nullptr);
    }
  }
}
