// Every hand-made bad model is refused with a typed error and one sentence that names what is wrong.
#include "../bad_models.h"

#include <doctest/doctest.h>

#include "platform/error.h"
#include "runtime/model.h"

using namespace allmem;
using namespace allmem::test;

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
