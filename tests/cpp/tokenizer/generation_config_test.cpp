// generation_config.json: what it may say, and what is refused.
#include "tokenizer/generation_config.h"

#include <doctest/doctest.h>

#include <vector>

#include "platform/error.h"

using allmem::Error;
using allmem::generation_config;
using allmem::GenerationConfig;

TEST_CASE("generation_config.json says what ends a text and how tokens are drawn") {
  const GenerationConfig config = generation_config(
      R"({"eos_token_id": [2, 7], "temperature": 0.6, "top_k": 20, "top_p": 0.95, "min_p": 0, "repetition_penalty": 1.1,
          "do_sample": true, "transformers_version": "5"})",
      "file");
  CHECK(config.stop_ids == std::vector<int32_t>{2, 7});
  CHECK(config.temperature == 0.6);
  CHECK(config.top_k == 20);
  CHECK(config.top_p == 0.95);
  CHECK(config.min_p == 0.0);
  CHECK(config.repetition_penalty == 1.1);
}

TEST_CASE("generation_config.json may say nothing, or one token") {
  const GenerationConfig config = generation_config(R"({"eos_token_id": 3, "top_k": null})", "file");
  CHECK(config.stop_ids == std::vector<int32_t>{3});
  CHECK(!config.temperature);
  CHECK(!config.top_k);
  CHECK(generation_config("{}", "file").stop_ids.empty());
}

TEST_CASE("a model that is not to be sampled takes the most likely token") {
  CHECK(generation_config(R"({"do_sample": false, "temperature": 0.6})", "file").temperature == 0.0);
}

TEST_CASE("a damaged generation_config.json is refused") {
  for (const char* json : {"", "[]", "{", R"({"eos_token_id": -1})", R"({"eos_token_id": "x"})",
                           R"({"eos_token_id": [null]})", R"({"eos_token_id": 4294967296})",
                           R"({"temperature": "hot"})", R"({"top_k": 1.5})", R"({"do_sample": 0})"}) {
    CHECK_THROWS_AS(generation_config(json, "file"), Error);
  }
  CHECK_THROWS_AS(generation_config({}, "file"), Error);  // an empty file is mapped to null
}
