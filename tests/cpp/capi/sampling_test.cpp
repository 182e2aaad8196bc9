// How the C API draws tokens: options, bias, filters, stop texts.
#include <doctest/doctest.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <limits>
#include <string>
#include <vector>

#include "../temp_dir.h"
#include "app.h"

using namespace allmem::test;

TEST_CASE("sampling at temperature 0 takes the largest of the logits") {
  const ModelPtr model = load();
  const SessionPtr session = create(model);
  const allmem_sampling sampling = greedy();
  REQUIRE(allmem_session_set_sampling(session.get(), &sampling) == ALLMEM_OK);
  const std::vector<int32_t> ids = many_tokens(model, 50);
  REQUIRE(allmem_session_prefill(session.get(), ids.data(), ids.size(), nullptr) == ALLMEM_OK);
  size_t count = 0;
  CHECK(allmem_session_logits(session.get(), nullptr, 0, &count) == ALLMEM_BUFFER_TOO_SMALL);
  std::vector<float> logits(count);
  REQUIRE(allmem_session_logits(session.get(), logits.data(), logits.size(), &count) == ALLMEM_OK);
  int32_t id = -1;
  REQUIRE(allmem_session_sample(session.get(), &id) == ALLMEM_OK);
  CHECK(id == std::ranges::max_element(logits) - logits.begin());
}

TEST_CASE("a logit bias excludes a token, and log-probabilities do not know of it") {
  const ModelPtr model = load();
  const std::vector<int32_t> ids = many_tokens(model, 20);
  struct Seen {
    std::vector<allmem_token_score> tokens, best;
  };
  const auto look = [](allmem_token_score token, const allmem_token_score* best, size_t count,
                       void* user_data) {
    auto& seen = *static_cast<Seen*>(user_data);
    seen.tokens.push_back(token);
    seen.best.insert(seen.best.end(), best, best + count);
  };
  const auto generate = [&](const allmem_sampling& sampling) {
    Seen seen;
    const SessionPtr session = create(model);
    REQUIRE(allmem_session_set_token_callback(session.get(), 2, look, &seen) == ALLMEM_OK);
    REQUIRE(allmem_session_generate(session.get(), ids.data(), ids.size(), &sampling, nullptr, nullptr,
                                    nullptr) == ALLMEM_OK);
    REQUIRE(seen.best.size() == 2 * seen.tokens.size());
    return seen;
  };
  allmem_sampling sampling = greedy();
  sampling.max_tokens = 1;
  const Seen free = generate(sampling);
  REQUIRE(free.tokens.size() == 1);
  CHECK(free.tokens[0].id == free.best[0].id);
  CHECK(free.tokens[0].logprob == free.best[0].logprob);
  const allmem_logit_bias never = {free.tokens[0].id, -std::numeric_limits<float>::infinity()};
  sampling.logit_bias = &never;
  sampling.logit_bias_count = 1;
  const Seen biased = generate(sampling);
  CHECK(biased.tokens[0].id == free.best[1].id);
  CHECK(biased.tokens[0].logprob == free.best[1].logprob);
  CHECK(biased.best[0].id == free.best[0].id);
}

TEST_CASE("a token filter has the last word, and a text ends where it leaves none") {
  const ModelPtr model = load();
  const SessionPtr session = create(model);
  const std::vector<int32_t> wanted = tokenize(model, "exactly this");
  struct Grammar {
    const std::vector<int32_t>& wanted;
    size_t next = 0;
  } grammar{wanted};
  const auto filter = [](int32_t last, uint32_t* allowed, size_t word_count, void* user_data) {
    auto& self = *static_cast<Grammar*>(user_data);
    CHECK(word_count == 2048 / 32);
    CHECK(last == (self.next == 0 ? -1 : self.wanted[self.next - 1]));
    std::fill(allowed, allowed + word_count, 0);
    if (self.next == self.wanted.size()) return;
    const auto id = static_cast<uint32_t>(self.wanted[self.next++]);
    allowed[id / 32] = uint32_t{1} << (id % 32);
  };
  REQUIRE(allmem_session_set_token_filter(session.get(), filter, &grammar) == ALLMEM_OK);
  std::string text;
  allmem_generation generation;
  generation.struct_size = sizeof generation;
  REQUIRE(allmem_session_generate(session.get(), wanted.data(), 1, nullptr, append, &text, &generation) ==
          ALLMEM_OK);
  CHECK(text == "exactly this");
  CHECK(generation.finish == ALLMEM_FINISH_NO_TOKEN);
  REQUIRE(allmem_session_set_token_filter(session.get(), nullptr, nullptr) == ALLMEM_OK);
}

TEST_CASE("a special token as stop text ends the text where the model writes it") {
  const ModelPtr whole = load();
  // A model whose files name no end: only the stop text can.
  const TempDir directory;
  std::vector<std::string> contents;
  std::vector<allmem_file> files;
  for (const char* name : {"model.onnx", "model.onnx.data", "tokenizer.json"}) {
    std::ifstream file(kBundled + "/" + name, std::ios::binary);
    contents.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  const std::string start =
      "<|im_start|>";  // without it the tokens are not ChatML's, and nothing ends a turn
  for (size_t at; (at = contents[2].find(start)) != std::string::npos;)
    contents[2].replace(at, start.size(), "<|xx_start|>");
  const char* names[] = {"model.onnx", "model.onnx.data", "tokenizer.json"};
  for (size_t i = 0; i < 3; ++i) files.push_back({names[i], contents[i].data(), contents[i].size(), -1, 0});
  allmem_model* raw = nullptr;
  REQUIRE(allmem_model_load_memory(files.data(), 3, nullptr, &raw) == ALLMEM_OK);
  const ModelPtr model(raw);
  const allmem_message message = {"user", "Hi, my name is Tobias."};
  std::vector<int32_t> ids(100);
  size_t count = 0;
  REQUIRE(allmem_chat_encode(whole.get(), &message, 1, 0, ids.data(), ids.size(), &count) == ALLMEM_OK);
  const char* stops[] = {"<|im_end|>"};
  for (const size_t stop_count : {0, 1}) {
    allmem_sampling sampling = greedy();
    sampling.stop = stops;
    sampling.stop_count = stop_count;
    allmem_generation generation;
    generation.struct_size = sizeof generation;
    const SessionPtr session = create(model);
    REQUIRE(allmem_session_generate(session.get(), ids.data(), count, &sampling, nullptr, nullptr,
                                    &generation) == ALLMEM_OK);
    CHECK(generation.finish == (stop_count == 1 ? ALLMEM_FINISH_STOP_TOKEN : ALLMEM_FINISH_MAX_TOKENS));
  }
  REQUIRE(allmem_text_prefix(model.get(), ids.data(), ids.size(), &count) == ALLMEM_OK);
  CHECK(count == 0);  // nothing begins a text of this model
}

TEST_CASE("an answer is drawn as generation_config.json asks for") {
  const ModelPtr model = load();
  allmem_sampling sampling;
  allmem_sampling_init(&sampling);
  REQUIRE(allmem_model_get_sampling(model.get(), &sampling) == ALLMEM_OK);
  CHECK(sampling.temperature == 0.3f);
  CHECK(sampling.top_p == 0.9f);
  CHECK(sampling.max_tokens == 512);
  const auto answer = [&](const allmem_sampling* chosen) {
    const SessionPtr session = create(model);
    const allmem_message message = {"user", "Tell me a story."};
    std::string text;
    REQUIRE(allmem_session_chat(session.get(), &message, 1, chosen, append, &text, nullptr) == ALLMEM_OK);
    return text;
  };
  CHECK(answer(nullptr) == answer(&sampling));

  std::vector<std::vector<char>> contents;
  std::vector<allmem_file> files;
  for (const char* name : {"model.onnx", "model.onnx.data", "tokenizer.json"}) {
    std::ifstream file(kBundled + "/" + name, std::ios::binary);
    contents.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    files.push_back({name, nullptr, 0, -1, 0});
  }
  for (size_t i = 0; i < files.size(); ++i) {
    files[i].data = contents[i].data();
    files[i].size = contents[i].size();
  }
  allmem_model* loaded = nullptr;
  REQUIRE(allmem_model_load_memory(files.data(), files.size(), nullptr, &loaded) == ALLMEM_OK);
  const ModelPtr without(loaded);
  REQUIRE(allmem_model_get_sampling(without.get(), &sampling) == ALLMEM_OK);
  CHECK(sampling.temperature == 0.7f);
  const std::string bad = R"({"top_p": 7})";
  files.push_back({"generation_config.json", bad.data(), bad.size(), -1, 0});
  CHECK(allmem_model_load_memory(files.data(), files.size(), nullptr, &loaded) == ALLMEM_BAD_TOKENIZER);
  CHECK(std::string(allmem_last_error()).starts_with("generation_config.json: "));
}
