// What a session refuses, what poisons it, and what it is afterwards.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "session_checks.h"

using namespace allmem;
using namespace allmem::test;

TEST_CASE("a number that is none poisons the session, and says that the weights are damaged") {
  TinyModel tiny;
  tiny.weights.at("wo")[3] = std::numeric_limits<float>::quiet_NaN();
  Session session(load(tiny), {.threads = 1});
  const auto ids = random_ids(20, tiny.config.vocab);
  std::vector<float> logits(static_cast<size_t>(tiny.config.vocab));
  const auto refused = [&](ErrorCode code, const char* part) {
    try {
      session.forward(ids, LogitsFor::kLast, logits);
      FAIL("was accepted");
    } catch (const Error& error) {
      CHECK(error.code() == code);
      CHECK(std::string(error.what()).find(part) != std::string::npos);
    }
  };
  refused(ErrorCode::kBadModel, "NaN or infinity");
  refused(ErrorCode::kPoisoned, "load a saved memory, or reset it");
  session.reset();
  CHECK(session.position() == 0);
}

TEST_CASE(
    "a number that is none poisons a session that reads without asking for logits, wherever it comes from") {
  const auto code_of = [](Session& session, std::span<const int32_t> ids) {
    try {
      session.forward(ids, LogitsFor::kNone, {});
    } catch (const Error& error) {
      return error.code();
    }
    return ErrorCode::kCancelled;  // none
  };
  for (const TinyConfig& config : {TinyConfig{}, quantised(8)}) {
    for (const float bad :
         {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      const TinyModel tiny(config);
      const auto ids = random_ids(300, config.vocab);
      for (const char* part :
           {"memory.weight.gate.state", "memory.weight.up.state", "memory.weight.down.state"}) {
        TinyModel damaged = tiny;
        damaged.weights.at(part)[5] = bad;
        Session session(load(damaged), {.threads = 1});
        CHECK_MESSAGE(code_of(session, ids) == ErrorCode::kBadModel, part);
        CHECK(code_of(session, ids) == ErrorCode::kPoisoned);
        CHECK_THROWS_AS(session.state_memory(), Error);
      }
      Session session(load(tiny), {.threads = 1});
      CHECK(code_of(session, ids) == ErrorCode::kCancelled);
    }
  }
  TinyModel tiny;  // the embedding of one token, which the last ones of its block do not see
  const auto width = static_cast<size_t>(tiny.config.width);
  tiny.weights.at("embedding")[3 * width] = std::numeric_limits<float>::quiet_NaN();
  Session session(load(tiny), {.threads = 1});
  session.freeze(true);
  std::vector<int32_t> ids(100, 4);
  CHECK(code_of(session, ids) == ErrorCode::kCancelled);
  ids[20] = 3;
  CHECK(code_of(session, ids) == ErrorCode::kBadModel);
}

TEST_CASE("wrong arguments are refused with the session unchanged") {
  const TinyModel tiny;
  const auto model = load(tiny);
  Session session(model, {.threads = 1}), untouched(model, {.threads = 1});
  const auto ids = random_ids(10, tiny.config.vocab);
  std::vector<float> row(static_cast<size_t>(tiny.config.vocab));
  const auto refused = [&](std::vector<int32_t> bad, LogitsFor which, std::span<float> logits) {
    CHECK(code_of([&] { session.forward(bad, which, logits); }) == ErrorCode::kInvalidArgument);
  };
  refused({}, LogitsFor::kNone, {});
  refused({1, -1}, LogitsFor::kNone, {});
  refused({1, static_cast<int32_t>(tiny.config.vocab)}, LogitsFor::kNone, {});
  refused({2147483647}, LogitsFor::kNone, {});
  refused({1}, LogitsFor::kLast, {});
  refused({1, 2}, LogitsFor::kAll, row);
  CHECK(code_of([&] { session.state(99); }) == ErrorCode::kInvalidArgument);
  CHECK(session.position() == 0);
  CHECK(run(session, ids) == run(untouched, ids));
  CHECK(code_of([&] { Session(model, {.threads = -1}); }) == ErrorCode::kInvalidArgument);
  CHECK(code_of([&] { Session(model, {.threads = 100000}); }) == ErrorCode::kInvalidArgument);
  CHECK(code_of([&] { Session(nullptr, {}); }) == ErrorCode::kInvalidArgument);
}

TEST_CASE(
    "a call that is ended between two blocks has read what it says, and the session goes on from there") {
  const TinyModel tiny;
  const auto model = load(tiny);
  Session session(model, {.threads = 2}), whole(model, {.threads = 2});
  const auto ids = random_ids(3 * kMaxBlock, tiny.config.vocab);
  std::vector<size_t> asked;
  const auto once = [&](size_t read) {
    asked.push_back(read);
    return asked.size() < 2;
  };
  std::vector<float> row(static_cast<size_t>(tiny.config.vocab), 7.0f);
  CHECK(session.forward(ids, LogitsFor::kLast, row, once) == 2 * kMaxBlock);
  CHECK(asked == std::vector<size_t>{kMaxBlock, 2 * kMaxBlock});
  CHECK(session.position() == 2 * kMaxBlock);
  CHECK(row == std::vector<float>(row.size(), 7.0f));  // of the last token, which was not read
  const auto rest = std::span(ids).last(kMaxBlock);
  const auto give_up = [](size_t) -> bool { throw Error(ErrorCode::kIo, "given up."); };
  CHECK(session.forward(rest, LogitsFor::kLast, row, give_up) == kMaxBlock);  // one block: nobody is asked
  std::vector<float> expected(row.size());
  CHECK(whole.forward(ids, LogitsFor::kLast, expected) == ids.size());
  CHECK(row == expected);
  CHECK(code_of([&] { session.forward(ids, LogitsFor::kNone, {}, give_up); }) == ErrorCode::kIo);
  CHECK(session.position() == 4 * kMaxBlock);
  CHECK(session.forward(rest, LogitsFor::kNone, {}) == rest.size());  // not poisoned
}

TEST_CASE("an error in mid-read poisons the session until reset") {
  const TempDir directory;
  Session session(Model::load(directory.write("bad.onnx", failing_at_30().build())), {.threads = 1});
  std::vector<float> row(40);
  session.forward(std::vector<int32_t>{29}, LogitsFor::kLast, row);
  CHECK(code_of([&] { session.forward(std::vector<int32_t>{30}, LogitsFor::kLast, row); }) ==
        ErrorCode::kBadModel);
  CHECK(code_of([&] { session.forward(std::vector<int32_t>{1}, LogitsFor::kLast, row); }) ==
        ErrorCode::kPoisoned);
  CHECK(code_of([&] { session.clone(); }) == ErrorCode::kPoisoned);
  session.reset();
  session.forward(std::vector<int32_t>{1}, LogitsFor::kLast, row);
  CHECK(row[0] == 1.5f);
}

TEST_CASE("a session can be frozen and thawed after an error, so that it goes on as it is wanted") {
  const TempDir directory;
  Session session(Model::load(directory.write("bad.onnx", failing_at_30().build())), {.threads = 1});
  std::vector<float> row(40);
  const auto fail = [&] {
    const auto read = [&] { session.forward(std::vector<int32_t>{30}, LogitsFor::kLast, row); };
    CHECK(code_of(read) == ErrorCode::kBadModel);
    CHECK(code_of(read) == ErrorCode::kPoisoned);
  };
  for (const bool frozen : {true, false}) {
    fail();
    session.freeze(frozen);
    CHECK(session.frozen() == frozen);
    session.reset();
    CHECK(session.frozen() == frozen);
    session.forward(std::vector<int32_t>{1}, LogitsFor::kLast, row);
  }
}

TEST_CASE("NaN and infinity in the weights are noticed, and so is what overflows") {
  for (const float value : {NAN, INFINITY, -INFINITY, 3e38f}) {
    CAPTURE(value);
    TinyModel tiny;
    for (auto& [name, values] : tiny.weights) values[values.size() / 2] = value;
    Session session(load(tiny), {.threads = 1});
    CHECK(code_of([&] { run(session, random_ids(80, tiny.config.vocab)); }) == ErrorCode::kBadModel);
    CHECK(session.position() <= 80);
  }
}
