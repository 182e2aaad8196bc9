// What the tests of sessions have in common.
#pragma once

#include <doctest/doctest.h>

#include <span>
#include <string>
#include <vector>

#include "platform/error.h"
#include "runtime/session.h"
#include "tiny_session.h"

namespace allmem::test {

inline std::vector<float> run(Session& session, std::span<const int32_t> ids) {
  std::vector<float> logits(ids.size() * static_cast<size_t>(session.model().info().vocab_size));
  session.forward(ids, LogitsFor::kAll, logits);
  return logits;
}

template <class F>
ErrorCode code_of(F&& f) {
  try {
    f();
  } catch (const Error& error) {
    CHECK(std::string(error.what()).ends_with("."));
    return error.code();
  }
  FAIL("no error");
  return ErrorCode::kIo;
}

}  // namespace allmem::test
