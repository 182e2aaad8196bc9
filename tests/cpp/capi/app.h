// What an app makes of the C API: handles that free themselves, the bundled model, a chat.
#pragma once

#include <doctest/doctest.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "allmem/allmem.h"

namespace allmem::test {

inline const std::string kBundled = ALLMEM_BUNDLED_MODEL;

struct FreeModel {
  void operator()(allmem_model* model) const { allmem_model_free(model); }
};
struct FreeSession {
  void operator()(allmem_session* session) const { allmem_session_free(session); }
};
struct FreeDecoder {
  void operator()(allmem_decoder* decoder) const { allmem_decoder_free(decoder); }
};
using ModelPtr = std::unique_ptr<allmem_model, FreeModel>;
using SessionPtr = std::unique_ptr<allmem_session, FreeSession>;

inline ModelPtr load() {
  allmem_model* model = nullptr;
  REQUIRE(allmem_model_load(kBundled.c_str(), nullptr, &model) == ALLMEM_OK);
  return ModelPtr(model);
}

inline SessionPtr create(const ModelPtr& model, int32_t threads = 1) {
  allmem_session_options options;
  allmem_session_options_init(&options);
  options.threads = threads;
  allmem_session* session = nullptr;
  REQUIRE(allmem_session_create(model.get(), &options, &session) == ALLMEM_OK);
  return SessionPtr(session);
}

inline allmem_sampling greedy() {
  allmem_sampling sampling;
  allmem_sampling_init(&sampling);
  sampling.temperature = 0;
  sampling.max_tokens = 48;
  return sampling;
}

inline int32_t append(const char* text, size_t size, void* user_data) {
  CHECK(std::strlen(text) == size);
  static_cast<std::string*>(user_data)->append(text, size);
  return 0;
}

inline std::string say(const SessionPtr& session, const char* text) {
  const allmem_message message = {"user", text};
  const allmem_sampling sampling = greedy();
  std::string answer;
  REQUIRE(allmem_session_chat(session.get(), &message, 1, &sampling, append, &answer, nullptr) == ALLMEM_OK);
  return answer;
}

inline std::vector<int32_t> tokenize(const ModelPtr& model, const std::string& text) {
  size_t count = 0;
  allmem_tokenize(model.get(), text.data(), text.size(), 0, nullptr, 0, &count);
  std::vector<int32_t> ids(count);
  REQUIRE(allmem_tokenize(model.get(), text.data(), text.size(), 0, ids.data(), ids.size(), &count) ==
          ALLMEM_OK);
  return ids;
}

inline std::vector<char> save(const SessionPtr& session) {
  size_t count = 0;
  CHECK(allmem_session_save(session.get(), "note", 4, nullptr, 0, &count) == ALLMEM_BUFFER_TOO_SMALL);
  std::vector<char> bytes(count);
  REQUIRE(allmem_session_save(session.get(), "note", 4, bytes.data(), bytes.size(), &count) == ALLMEM_OK);
  return bytes;
}

inline allmem_session_info info_of(const SessionPtr& session) {
  allmem_session_info info;
  info.struct_size = sizeof info;
  REQUIRE(allmem_session_get_info(session.get(), &info) == ALLMEM_OK);
  return info;
}

inline uint64_t position(const SessionPtr& session) { return info_of(session).position; }

inline allmem_layer_memory inspect(const SessionPtr& session, int32_t layer) {
  allmem_layer_memory memory;
  memory.struct_size = sizeof memory;
  REQUIRE(allmem_session_inspect(session.get(), layer, &memory) == ALLMEM_OK);
  return memory;
}

inline std::vector<int32_t> many_tokens(const ModelPtr& model, size_t count) {
  std::string text;
  while (text.size() < 8 * count) text += "The weather was fine and we talked about the garden. ";
  std::vector<int32_t> ids = tokenize(model, text);
  REQUIRE(ids.size() >= count);
  ids.resize(count);
  return ids;
}

}  // namespace allmem::test
