// What the tests of snapshots share.
#pragma once

#include <doctest/doctest.h>

#include <filesystem>
#include <functional>

#include "platform/error.h"
#include "texts.h"
#include "tiny_session.h"

namespace allmem::test::snapshots {

inline std::vector<float> run(Writer& writer, std::span<const int32_t> ids) {
  std::vector<float> logits(ids.size() * static_cast<size_t>(writer.session().model().info().vocab_size));
  writer.read(ids, LogitsFor::kAll, logits);
  return logits;
}

inline std::string message_of(const std::function<void()>& call, ErrorCode expected) {
  try {
    call();
  } catch (const Error& error) {
    CHECK(std::string(error.what()).ends_with("."));
    CHECK(error.code() == expected);
    return error.what();
  }
  FAIL("was accepted");
  return {};
}

inline Writer make_writer(const std::shared_ptr<const Model>& model) {
  return Writer(std::make_unique<Session>(model, SessionOptions{.threads = 1}));
}

// A small model, a session of it, and what it will read.
struct Fixture {
  TinyModel tiny;
  std::shared_ptr<const Model> model = load(tiny);
  std::vector<int32_t> ids = random_ids(200, model->info().vocab_size);
  Writer writer = make_writer(model);
  std::span<const int32_t> first() const { return std::span(ids).first(77); }  // ends in mid-chunk
  std::span<const int32_t> rest() const { return std::span(ids).subspan(77); }

  void refused(std::span<const std::byte> snapshot) {
    message_of([&] { load_snapshot(writer, nullptr, snapshot); }, ErrorCode::kBadSnapshot);
  }
};

}  // namespace allmem::test::snapshots
