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

inline std::vector<std::byte> bytes_of(const Session& session) {
  return {session.state_memory().begin(), session.state_memory().end()};
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

// Reads a table with an index that the tokens decide: id 30 of 40 is beyond its rows. Other logits are 1.5.
inline OnnxBuilder failing_at_30() {
  OnnxBuilder bad;
  bad.defaults().input("input_ids", kInt64, {kT}).output("logits", kFloat, {kT, 40});
  bad.floats("table", {40, 40}, std::vector<float>(1600, 0.5f))
      .floats("small", {30, 40}, std::vector<float>(1200, 1.0f));
  bad.node("Cast", {"input_ids"}, {"narrow"}, {Attr::i("to", kInt32)});
  bad.node("Gather", {"small", "narrow"}, {"a"}).node("Gather", {"table", "input_ids"}, {"b"});
  bad.node("Add", {"a", "b"}, {"logits"});
  return bad;
}

}  // namespace allmem::test
