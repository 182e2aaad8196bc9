// The small files of a model: what they may say, in which order they count, and what is refused.
#include "runtime/model_text.h"

#include <doctest/doctest.h>

#include <ctime>
#include <map>
#include <string>

#include "platform/error.h"

using namespace allmem;

namespace {

using Files = std::map<std::string, std::string>;
using Ids = std::vector<int32_t>;

// a, b, <end> (2), <|im_start|> (3), <|im_end|> (4)
std::string tokenizer_json(const std::string& more = "") {
  std::string tokens;
  for (const char* token : {"<end>", "<|im_start|>", "<|im_end|>"}) {
    const auto id = 2 + std::count(tokens.begin(), tokens.end(), '{');
    tokens += std::string(tokens.empty() ? "" : ",") + R"({"id":)" + std::to_string(id) + R"(,"content":")" +
              token +
              R"(","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true})";
  }
  return R"({"added_tokens":[)" + tokens +
         R"(],"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false},)" + more +
         R"("decoder":{"type":"ByteLevel"},"model":{"vocab":{"a":0,"b":1},"merges":[]}})";
}

ModelText read(const Files& files, int64_t vocab_size = 5) {
  return read_model_text(
      [&](const std::string& name) -> std::unique_ptr<MappedFile> {
        const auto found = files.find(name);
        if (found == files.end()) return nullptr;
        return std::make_unique<MappedFile>(name, std::as_bytes(std::span(found->second)));
      },
      vocab_size);
}

Ids stop_ids(const Files& files) { return read(files).defaults.stop_ids; }

}  // namespace

TEST_CASE("generation_config.json says how tokens are drawn, the library what it leaves open") {
  const SamplerOptions of_nothing = read({}).defaults.sampling;
  CHECK(of_nothing.temperature == 0.7f);
  CHECK(of_nothing.top_p == 1.0f);
  CHECK(read({}).defaults.max_tokens == 512);
  const SamplerOptions options =
      read({{"generation_config.json",
             R"({"temperature": 0.6, "top_k": 20, "top_p": 0.95, "min_p": 0, "repetition_penalty": 1.1,
                 "do_sample": true, "transformers_version": "5", "max_length": 20})"}})
          .defaults.sampling;
  CHECK(options.temperature == 0.6f);
  CHECK(options.top_k == 20);
  CHECK(options.top_p == 0.95f);
  CHECK(options.min_p == 0.0f);
  CHECK(options.repetition_penalty == 1.1f);
  CHECK(read({{"generation_config.json", R"({"top_k": null})"}}).defaults.sampling.top_k == 0);
  const Files greedy = {{"generation_config.json", R"({"do_sample": false, "temperature": 0.6})"}};
  CHECK(read(greedy).defaults.sampling.temperature == 0.0f);
}

TEST_CASE("a text ends at what any of the files calls its end") {
  const auto generation = [](const std::string& eos) {
    return Files{{"generation_config.json", R"({"eos_token_id": )" + eos + "}"}};
  };
  CHECK(stop_ids({}) == Ids{});
  CHECK(stop_ids(generation("3")) == Ids{3});
  CHECK(stop_ids(generation("[1, 0]")) == Ids{0, 1});
  CHECK(stop_ids(generation("[1, 5, 1, 2147483647, 0]")) == Ids{0, 1});  // of which the model has five
  Files files = generation("[1]");
  files["config.json"] = R"({"eos_token_id": 0})";
  CHECK(stop_ids(files) == Ids{1});  // what transformers takes, too: config.json only without the other
  files.erase("generation_config.json");
  CHECK(stop_ids(files) == Ids{0});
  files["tokenizer_config.json"] = R"({"eos_token": "<end>"})";
  CHECK(stop_ids(files) == Ids{0});  // no tokenizer, no id
  files["tokenizer.json"] = tokenizer_json();
  CHECK(stop_ids(files) == Ids{0, 2, 4});  // <|im_end|> ends a turn of ChatML
  files["tokenizer_config.json"] = R"({"eos_token": {"content": "<|im_end|>", "lstrip": false}})";
  CHECK(stop_ids(files) == Ids{0, 4});
  files["tokenizer_config.json"] = R"({"eos_token": null})";
  files["special_tokens_map.json"] = R"({"eos_token": "<end>", "bos_token": "<|im_start|>",
                                         "additional_special_tokens": ["<end>"]})";
  CHECK(stop_ids(files) == Ids{0, 2, 4});
  CHECK(read(files).special_tokens ==
        std::map<std::string, std::string>{{"bos_token", "<|im_start|>"}, {"eos_token", "<end>"}});
}

TEST_CASE("tokens that tokenizer.json lacks and a text may have are refused, wherever they are written") {
  const auto said = [](const Files& more) {
    Files files = {{"tokenizer.json", tokenizer_json()}};
    for (const auto& [name, json] : more) files[name] = json;
    try {
      read(files);
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::kBadTokenizer);
      return std::string(error.what());
    }
    return std::string();
  };
  const auto names = [](const std::string& sentence, const std::string& file) {
    return sentence.starts_with(file + " has the token \"<x>\"");
  };
  for (const char* json :
       {R"({"bos_token": "<x>"})", R"({"eos_token": {"content": "<x>"}})", R"({"image_token": "<x>"})",
        R"({"extra_special_tokens": {"image": "<x>"}})", R"({"extra_special_tokens": ["<x>"]})",
        R"({"additional_special_tokens": ["<end>", {"content": "<x>"}]})"}) {
    CHECK_MESSAGE(names(said({{"tokenizer_config.json", json}}), "tokenizer_config.json"), json);
    CHECK_MESSAGE(names(said({{"special_tokens_map.json", json}}), "special_tokens_map.json"), json);
    // A config with the decoder has all there is to say.
    CHECK(said({{"special_tokens_map.json", json},
                {"tokenizer_config.json", R"({"added_tokens_decoder": {}})"}}) == "");
  }
  CHECK(names(said({{"tokenizer_config.json", R"({"added_tokens_decoder": {"9": {"content": "<x>"}}})"}}),
              "tokenizer_config.json"));
  CHECK(names(said({{"added_tokens.json", R"({"<end>": 2, "<x>": 9})"}}), "added_tokens.json"));
  CHECK(said({{"tokenizer_config.json", R"({"pad_token": "<x>", "unk_token": "<x>", "bos_token": null,
                                            "additional_special_tokens": ["<end>"]})"},
              {"special_tokens_map.json", R"({"additional_special_tokens": ["<x>"]})"}}) == "");
  CHECK(read({{"tokenizer_config.json", R"({"bos_token": "<x>"})"}}).special_tokens.at("bos_token") == "<x>");
}

TEST_CASE("a text begins with what the post-processor puts there, unless add_bos_token says otherwise") {
  const char* processor =
      R"("post_processor":{"type":"Sequence","processors":[{"type":"ByteLevel","add_prefix_space":false},
         {"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<end>","type_id":0}},
           {"Sequence":{"id":"A","type_id":0}},{"SpecialToken":{"id":"<|im_end|>","type_id":0}}],
          "special_tokens":{"<end>":{"id":"<end>","ids":[2],"tokens":["<end>"]}}}]},)";
  Files files = {{"tokenizer.json", tokenizer_json(processor)}};
  CHECK(read(files).prefix == Ids{2});
  files["tokenizer_config.json"] = R"({"bos_token": "<|im_start|>"})";
  CHECK(read(files).prefix == Ids{2});
  files["tokenizer_config.json"] = R"({"bos_token": "<|im_start|>", "add_bos_token": true})";
  CHECK(read(files).prefix == Ids{3});
  files["tokenizer_config.json"] = R"({"bos_token": "<|im_start|>", "add_bos_token": false})";
  CHECK(read(files).prefix == Ids{});
  files = {{"tokenizer.json", tokenizer_json()}, {"tokenizer_config.json", R"({"bos_token": "<end>"})"}};
  CHECK(read(files).prefix == Ids{});  // it exists, but begins nothing
}

TEST_CASE("an integer that no integer holds is no reason to refuse a file that is about something else") {
  const Files files = {
      {"tokenizer_config.json",
       R"({"model_max_length": 1000000000000000019884624838656, "x": [-99999999999999999999, 1.00000000000000000001,
           1e-0000000000000000000007], "bos_token": "\"1000000000000000019884624838656\\", "eos_token": "e"})"}};
  CHECK(read(files).special_tokens.at("bos_token") == "\"1000000000000000019884624838656\\");
  CHECK(read(files).special_tokens.at("eos_token") == "e");
}

TEST_CASE("a file of digits takes no longer than another one, in a string or without") {
  const std::string digits(size_t{1} << 22, '7');
  const std::clock_t begin = std::clock();
  CHECK(read({{"tokenizer_config.json", R"({"x": ")" + digits + R"(", "bos_token": "b"})"}})
            .special_tokens.at("bos_token") == "b");
  std::string signs = "[";
  for (int i = 0; i < 1 << 18; ++i) signs += "-1234567890,";
  CHECK_NOTHROW(read({{"tokenizer_config.json", R"({"x": )" + signs + "1]}"}}));
  CHECK(std::clock() - begin < 10 * CLOCKS_PER_SEC);
}

TEST_CASE("a hundred thousand fields of one name take no longer than others") {
  std::string many = "{", more;
  for (int i = 0; i < 100'000; ++i) {
    many += R"("bos_token": "a", )";
    more += "\"" + std::to_string(i) + "\": 0, ";
  }
  many += R"("eos_token": "b"})";
  const Files files = {{"tokenizer_config.json", many},
                       {"special_tokens_map.json", "{" + more + R"("bos_token": null, "unk_token": "c"})"}};
  CHECK(read(files).special_tokens ==
        std::map<std::string, std::string>{{"eos_token", "b"}, {"unk_token", "c"}});
}

TEST_CASE("damaged files are refused, and the sentence names them") {
  const auto refused = [](const Files& files, const char* part) {
    try {
      read(files);
      FAIL("accepted: " << files.begin()->second);
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::kBadTokenizer);
      CHECK(std::string(error.what()).find(files.begin()->first) != std::string::npos);
      CHECK_MESSAGE(std::string(error.what()).find(part) != std::string::npos, error.what());
    }
  };
  for (const char* json :
       {"", "[]", "{", R"({"eos_token_id": -1})", R"({"eos_token_id": "x"})", R"({"eos_token_id": [null]})",
        R"({"eos_token_id": 4294967296})", R"({"temperature": "hot"})", R"({"top_k": 1.5})",
        R"({"top_k": 4294967296})", R"({"do_sample": 0})", R"({"temperature": -1})", R"({"top_p": 0})"}) {
    refused({{"generation_config.json", json}}, "generation_config.json");
  }
  refused({{"tokenizer_config.json", R"({"eos_token": 3})"}}, "eos_token");
  const Files with_tokenizer = {{"tokenizer.json", tokenizer_json()}};
  const auto refused_tokens = [&](const std::string& tokens, const char* part) {
    Files files = with_tokenizer;
    files["added_tokens.json"] = tokens;
    try {
      read(files);
      FAIL("accepted");
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::kBadTokenizer);
      CHECK_MESSAGE(std::string(error.what()).find(part) != std::string::npos, error.what());
    }
  };
  refused_tokens(R"({")" + std::string(1025, 'a') + R"(": 9})", "1024 bytes");
  std::string many = R"({"a": 0)";
  for (size_t i = 0; i < 220'000; ++i) many += R"(,"<end>": 2)";
  refused_tokens(many + "}", "1 MiB");
  refused({{"tokenizer_config.json", R"({"add_bos_token": 1})"}}, "add_bos_token");
  refused({{"special_tokens_map.json", "[]"}}, "object");
  refused({{"config.json", R"({"eos_token_id": "x"})"}}, "eos_token_id");
  refused({{"tokenizer.json", tokenizer_json(R"("post_processor":{"type":"TemplateProcessing",
            "single":[{"SpecialToken":{"id":"<end>"}}],"special_tokens":{"<end>":{"ids":[5]}}},)")}},
          "ids");
  refused({{"generation_config.json", std::string((size_t{16} << 20) + 1, ' ')}}, "16 MiB");
}

TEST_CASE("a tokenizer of another model is refused") {
  CHECK_THROWS_AS(read({{"tokenizer.json", tokenizer_json()}}, 4), Error);
}
