// A good model to be made a bad one, and the check that it is refused.
#pragma once

#include <doctest/doctest.h>

#include <string>

#include "../onnx_builder.h"
#include "onnx/model.h"
#include "platform/error.h"

namespace allmem::test {

// A valid graph to which a case adds what is wrong.
inline OnnxBuilder good() {
  OnnxBuilder b;
  b.defaults().input("input_ids", kInt64, {kT}).output("logits", kFloat, {kT, 4});
  b.floats("table", {3, 4}, std::vector<float>(12, 1.0f)).node("Gather", {"table", "input_ids"}, {"logits"});
  return b;
}

inline std::string refusal(const std::string& path, ErrorCode code) {
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

inline std::string raw(size_t size) { return std::string(size, '\1'); }

}  // namespace allmem::test
