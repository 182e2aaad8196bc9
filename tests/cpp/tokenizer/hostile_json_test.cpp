// Damaged and hostile tokenizer.json files: each is refused with one sentence that names file and field.
#include <doctest/doctest.h>

#include <algorithm>
#include <ctime>
#include <random>

#include "fixture.h"
#include "platform/error.h"

using allmem::Error;
using allmem::ErrorCode;
using allmem::test::load;
using allmem::test::small_tokenizer_json;
using allmem::test::with;

namespace {

void check_refused(const std::string& json, ErrorCode code, const std::string& field) {
  CAPTURE(field);
  try {
    load(json);
    FAIL("the file was accepted");
  } catch (const Error& error) {
    CAPTURE(std::string(error.what()));
    CHECK(error.code() == code);
    const std::string message = error.what();
    CHECK(message.find("tokenizer.json") == 0);
    CHECK(message.find(field) != std::string::npos);
    CHECK(message.back() == '.');
  }
}

struct Damage {
  const char* from;
  const char* to;
  const char* field;  // what the sentence names
};

constexpr const char* kRegex = R"x({"Regex":" ?\\p{L}+|\\p{N}|\\s+(?!\\S)|\\s+"})x";
constexpr const char* kNormalizer = R"({"type":"NFC"})";

const Damage kBad[] = {
    {R"("h e",)", R"("h z e",)", "model.merges"},
    {R"("h e",)", R"("he",)", "model.merges"},
    {R"("h e",)", R"("h ",)", "model.merges"},
    {R"("h e",)", R"("zz e",)", "model.merges"},
    {R"("h e",)", R"("h z",)", "model.merges"},
    {R"("h e",)", R"(["h"],)", "model.merges"},
    {R"("h e",)", R"(["h","e","l"],)", "model.merges"},
    {R"("h e",)", R"(["h",1],)", "model.merges"},
    {R"("h e",)", "7,", "model.merges"},
    {R"("merges":[)", R"("merged":[)", "merges"},
    {R"("vocab":{)", R"("vocabulary":{)", "vocab"},
    {R"("he":256)", R"("he":-1)", "model.vocab"},
    {R"("he":256)", R"("he":4000000000)", "model.vocab"},
    {R"("he":256)", R"("he":99999999999999999999)", "tokenizer.json"},
    {R"("he":256)", R"("he":16000000)", "model.vocab"},
    {R"("he":256)", R"("he":1.5)", "model.vocab"},
    {R"("he":256)", R"("he":"256")", "model.vocab"},
    {R"("he":256)", R"("he":null)", "model.vocab"},
    {R"("he":256)", R"("he":255)", "model.vocab"},
    {R"("he":256)", R"("ll":256)", "model.vocab"},
    {R"("id":261)", R"("id":260)", "added_tokens[0].id"},
    {R"("id":261)", R"("id":-5)", "added_tokens[0].id"},
    {R"("id":261)", R"("id":300)", "added_tokens[0].id"},
    {R"("id":261)", R"("id":2147483648)", "added_tokens[0].id"},
    {R"("id":261,)", "", "added_tokens[0]"},
    {R"("content":"<|end|>")", R"("content":"")", "added_tokens[0].content"},
    {R"("content":"<|end|>")", R"("content":7)", "added_tokens[0].content"},
    {R"("content":"<|endless|>")", R"("content":"<|end|>")", "added_tokens[1].content"},
    {R"("normalized":false,"special":true)", R"("normalized":false,"special":"yes")",
     "added_tokens[0].special"},
    {R"("normalized":false,"special":true)", R"("special":true)", "added_tokens[0]"},
    {R"("added_tokens":[)", R"("added_tokens":{},"x":[)", "added_tokens"},
    {kNormalizer, R"("NFC")", "normalizer"},
    {kNormalizer, "{}", "normalizer"},
    {kNormalizer, R"({"type":"Sequence"})", "normalizer"},
    {kRegex, R"x({"Regex":"(a"})x", "pre_tokenizer"},
    {kRegex, R"x({"Regex":"a{5,2}"})x", "pre_tokenizer"},
    {kRegex, R"x({"Regex":7})x", "pattern.Regex"},
    {kRegex, "{}", "pattern"},
    {R"("behavior":"Isolated")", R"("behavior":"Shuffled")", "behavior"},
    {R"("invert":false)", R"("invert":0)", "invert"},
    {R"("fuse_unk":false)", R"("fuse_unk":[])", "model.fuse_unk"},
    {R"("dropout":null)", R"("dropout":"no")", "model.dropout"},
    {R"({"version":"1.0")", R"({"version":1)", "version"},
    {R"({"version")", R"(["version")", "not valid JSON"},
};

const Damage kUnsupportedCases[] = {
    {kNormalizer, R"({"type":"Lowercase"})", "Lowercase"},
    {kNormalizer, R"({"type":"Sequence","normalizers":[{"type":"NFC"},{"type":"StripAccents"}]})",
     "StripAccents"},
    {R"("type":"BPE")", R"("type":"Unigram")", "Unigram"},
    {R"("byte_fallback":false)", R"("byte_fallback":true)", "model.byte_fallback"},
    {R"("dropout":null)", R"("dropout":0.1)", "model.dropout"},
    {R"("end_of_word_suffix":"")", R"("end_of_word_suffix":"</w>")", "model.end_of_word_suffix"},
    {R"("pre_tokenizer":{"type":"Sequence")", R"("pre_tokenizer":{"type":"Metaspace")", "Metaspace"},
    {R"("pre_tokenizer":{)", R"("pre_tokenizer":null,"x":{)", "pre_tokenizer"},
    {R"("decoder":{"type":"ByteLevel")", R"("decoder":{"type":"WordPiece")", "WordPiece"},
    {R"("decoder":{)", R"("decoder":null,"x":{)", "decoder"},
    {R"({"version":"1.0")", R"({"version":"2.0")", "version"},
    {kRegex, R"x({"Regex":"[a-z&&[^b]]"})x", "intersection"},
    {kRegex, R"x({"Regex":"a\\b"})x", "escape"},
    {kRegex, R"x({"Regex":"(a)\\1"})x", "escape"},
    {kRegex, R"x({"Regex":"(?m:a.b)"})x", "group"},
    {kRegex, R"x({"Regex":"(?R)"})x", "group"},
    {kRegex, R"x({"Regex":"a**"})x", "quantifier"},
    {kRegex, R"x({"Regex":"\\p{Alpha}"})x", "property"},
    {kRegex, R"x({"Regex":"(*LIMIT_MATCH=1)a"})x", "group"},
};

}  // namespace

TEST_CASE("the undamaged file loads") { CHECK(load(small_tokenizer_json())->vocab_size() == 263); }

TEST_CASE("a text begins with at most 64 special tokens, however they are written") {
  const auto processed = [](int items, int ids) {
    std::string single, list;
    for (int i = 0; i < items; ++i) single += R"({"SpecialToken":{"id":"x"}},)";
    for (int i = 0; i < ids; ++i) list += i > 0 ? ",261" : "261";
    return with(small_tokenizer_json(), R"("post_processor":{)",
                R"("post_processor":{"type":"TemplateProcessing","single":[)" + single +
                    R"({"Sequence":{"id":"A"}}],"special_tokens":{"x":{"ids":[)" + list + R"(]}}},"x":{)");
  };
  CHECK(load(processed(64, 1))->prefix().size() == 64);
  CHECK(load(processed(1, 64))->prefix().size() == 64);
  for (const std::string& json : {processed(65, 0), processed(65, 1), processed(1, 65), processed(33, 2)})
    check_refused(json, ErrorCode::kUnsupported, "post_processor.");
}

TEST_CASE("a damaged field is refused by name") {
  for (const Damage& damage : kBad) {
    check_refused(with(small_tokenizer_json(), damage.from, damage.to), ErrorCode::kBadTokenizer,
                  damage.field);
  }
}

TEST_CASE("a component outside byte-level BPE is refused by name") {
  for (const Damage& damage : kUnsupportedCases) {
    check_refused(with(small_tokenizer_json(), damage.from, damage.to), ErrorCode::kUnsupported,
                  damage.field);
  }
}

TEST_CASE("what a refusal says of a file's own text is printable, and short") {
  const std::string json = small_tokenizer_json(), clear = R"(\u001b[2J\u001b]0;mine\u0007)";
  const std::string key(20'000, 'k');
  const auto begins_with = [&](const std::string& name, const std::string& ids) {
    return with(json, R"("post_processor":{)",
                R"("post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":")" + name +
                    R"("}}],"special_tokens":{)" + ids + R"(}},"x":{)");
  };
  const std::string out_of_range = "\"" + key + R"(":{"ids":[0,0,-1]})";
  for (const std::string& damaged :
       {with(json, R"("he":256)", "\"" + clear + R"(":-1)"),
        with(json, R"("h e",)", "\"" + clear + R"( e",)"),
        with(json, kNormalizer, R"({"type":")" + clear + "\"}"), begins_with(clear, R"("x":{})"),
        begins_with(clear, "\"" + clear + R"(":{"ids":[-1]})"), begins_with(key, R"("x":{})"),
        begins_with(key, out_of_range), with(json, R"("version":"1.0")", R"("version":")" + clear + "\"")}) {
    try {
      load(damaged);
      FAIL("the file was accepted");
    } catch (const Error& error) {
      const std::string sentence = error.what();
      CAPTURE(sentence);
      CHECK(sentence.size() < 300);
      CHECK(sentence.find("not valid JSON") == std::string::npos);
      CHECK(std::ranges::none_of(sentence, [](unsigned char c) { return c < 0x20 || c == 0x7F; }));
    }
  }
  check_refused(begins_with(key, out_of_range), ErrorCode::kBadTokenizer,
                "post_processor.special_tokens.(a key of 20000 bytes).ids[2] is out of range");
}

TEST_CASE("files that are no JSON object are refused") {
  const std::string deep(100'000, '[');
  const std::string cut = small_tokenizer_json().substr(0, 3000);
  const std::string not_utf8 = with(small_tokenizer_json(), "<|end|>", "\xFF");
  for (const std::string& text : {std::string(), std::string("null"), std::string("[]"), std::string("{}"),
                                  std::string("\0\0", 2), deep, cut, not_utf8}) {
    CHECK_THROWS_AS(load(text), Error);
  }
  std::string nested = R"({"type":"NFC"})";
  for (int i = 0; i < 200; ++i) nested = R"({"type":"Sequence","normalizers":[)" + nested + "]}";
  check_refused(with(small_tokenizer_json(), kNormalizer, nested), ErrorCode::kUnsupported, "normalizer");
  check_refused(with(small_tokenizer_json(), "<|end|>", std::string(5000, 'x')), ErrorCode::kUnsupported,
                "added_tokens[0].content");
  std::string parentheses(5000, '(');
  parentheses += std::string(5000, ')');
  check_refused(with(small_tokenizer_json(), kRegex, R"({"Regex":")" + parentheses + "\"}"),
                ErrorCode::kBadTokenizer, "pre_tokenizer");
}

TEST_CASE("a text goes through 64 splitting steps at most") {
  const auto steps = [](int count) {
    std::string digits;
    for (int i = 0; i < count; ++i) digits += R"({"type":"Digits","individual_digits":false},)";
    return with(small_tokenizer_json(), R"("pretokenizers":[)", R"("pretokenizers":[)" + digits);
  };
  CHECK(load(steps(63))->encode("he1ll") == load(small_tokenizer_json())->encode("he1ll"));
  check_refused(steps(64), ErrorCode::kUnsupported, "64 splitting steps");
}

TEST_CASE("a text is normalized 8 times at most") {
  const auto forms = [](int count) {
    std::string list;
    for (int i = 0; i < count; ++i) list += (i > 0 ? "," : "") + std::string(kNormalizer);
    return with(small_tokenizer_json(), kNormalizer, R"({"type":"Sequence","normalizers":[)" + list + "]}");
  };
  CHECK(load(forms(8))->encode("he\u0301llo") == load(small_tokenizer_json())->encode("he\u0301llo"));
  check_refused(forms(9), ErrorCode::kUnsupported, "8 normal forms");
}

TEST_CASE("a pattern that backtracks without end gives an Error, not a hang") {
  const auto tokenizer = load(with(small_tokenizer_json(), kRegex, R"({"Regex":"(?:a|a)*[bc]"})"));
  CHECK_THROWS_AS(tokenizer->encode(std::string(64, 'a')), Error);
}

TEST_CASE("a pattern that takes long at each place gives an Error for any text, not only for a long one") {
  for (const char* pattern : {"(?:a|a){20}[xy]", "(?:a|a){12}[xy]", "(?:a|a){12}[xy]|a", "(?:|a|a){9}[xy]"}) {
    CAPTURE(pattern);
    const auto tokenizer =
        load(with(small_tokenizer_json(), kRegex, std::string(R"({"Regex":")") + pattern + "\"}"));
    for (const size_t size : {size_t{64}, size_t{1024}, size_t{1} << 16})
      CHECK_THROWS_AS(tokenizer->encode(std::string(size, 'a')), Error);
    CHECK(tokenizer->encode("hello") == load(small_tokenizer_json())->encode("hello"));
  }
}

TEST_CASE("whoever waits is asked whether to go on in the middle of a pattern that takes long") {
  for (const char* pattern :
       {"(?:a|a){20}[xy]", "(?:a|a){5}[xy]", "(?:a|a){5}[xy]|a", "[ab]*[xy]", "[ab]*[xy]|a"}) {
    CAPTURE(pattern);
    const auto tokenizer =
        load(with(small_tokenizer_json(), kRegex, std::string(R"({"Regex":")") + pattern + "\"}"));
    const std::clock_t begin = std::clock();
    try {
      size_t left = 4;
      tokenizer->encode(std::string(size_t{1} << 16, 'a'), true, [&] { return --left > 0; });
      FAIL("went on");
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::kCancelled);
    }
    CHECK(std::clock() - begin < 10 * CLOCKS_PER_SEC);
  }
}

TEST_CASE("runs of white space are no such pattern, however long or many") {
  const auto tokenizer =
      load(with(small_tokenizer_json(), kRegex, R"x({"Regex":" ?\\p{L}+|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"})x"));
  for (const size_t run : {size_t{1}, size_t{130}, size_t{5000}, size_t{1} << 19}) {
    std::string text;
    while (text.size() < size_t{1} << 19) text += std::string(run, ' ') + "l";
    CHECK(tokenizer->encode(text).size() == text.size());
  }
}

TEST_CASE("bytes changed at random never crash the reader or the tokenizer it makes") {
  std::mt19937 random(7);
  const std::string valid = small_tokenizer_json();
  const std::string text = "hello  hello 123\r\n caf\xC3\xA9 <|end|> \xF0\x9F\x98\x80";
  int accepted = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string json = valid;
    for (size_t i = 0; i <= random() % 3; ++i) {
      char& byte = json[random() % json.size()];
      byte = static_cast<char>(random() % 2 ? random()
                                            : static_cast<unsigned char>(byte) ^ (1u << random() % 8));
    }
    try {
      const auto tokenizer = load(json);
      tokenizer->decode(tokenizer->encode(text));
      ++accepted;
    } catch (const Error&) {
    }
  }
  CHECK(accepted < 3000);
}
