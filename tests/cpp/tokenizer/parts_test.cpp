// Text in parts: in plain ones special tokens are text, and all together are encoded as one text.
#include <doctest/doctest.h>

#include <vector>

#include "fixture.h"

using allmem::TextPart;
using allmem::test::load;
using allmem::test::small_tokenizer_json;
using allmem::test::with;
using Ids = std::vector<int32_t>;

namespace {

Ids encode(const std::vector<TextPart>& parts, const std::string& json = small_tokenizer_json()) {
  return load(json)->encode(parts);
}

}  // namespace

TEST_CASE("parts are encoded as one text") {
  CHECK(encode({{"he", true}, {"llo", false}}) == Ids{259});
  CHECK(encode({{"e", false}, {"\xCC\x81", true}}) ==
        encode({{"\xC3\xA9", false}}));  // composed across parts
  CHECK(encode({}) == Ids{});
  CHECK(encode({{"", true}, {"", false}}) == Ids{});
  // A character that is cut in two by its author stays broken.
  CHECK(encode({{"\xC3", false}, {"\xA9", true}}) == encode({{"\xEF\xBF\xBD\xEF\xBF\xBD", false}}));
}

TEST_CASE("a special token is text in a plain part, and where it reaches into one") {
  const Ids text = {'<', '|', 'e', 'n', 'd', '|', '>'};
  CHECK(encode({{"<|end|>", false}}) == Ids{261});
  CHECK(encode({{"<|end|>", true}}) == text);
  for (const size_t cut : {1, 3, 6}) {
    const std::string_view token = "<|end|>";
    CHECK(encode({{token.substr(0, cut), true}, {token.substr(cut), false}}) == text);
    CHECK(encode({{token.substr(0, cut), false}, {token.substr(cut), true}}) == text);
    CHECK(encode({{token.substr(0, cut), true}, {token.substr(cut), true}}) == text);
  }
  CHECK(encode({{"<|", false}, {"end", true}, {"|>", false}}) == text);
  CHECK(encode({{"<|endless|>", true}}) == Ids{262});  // is not special
}

TEST_CASE("plain text beside a special token does not hide it") {
  CHECK(encode({{"<|end|", true}, {"<|end|>", false}, {">", true}}) ==
        Ids{'<', '|', 'e', 'n', 'd', '|', 261, '>'});
  // A longer special token that reaches into plain text gives way to the shorter one before it.
  const std::string json = with(
      small_tokenizer_json(),
      R"("content":"<|endless|>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":false)",
      R"("content":"<|end|>x","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true)");
  CHECK(encode({{"<|end|>x", false}}, json) == Ids{262});
  CHECK(encode({{"<|end|>", false}, {"x", true}}, json) == Ids{261, 'x'});
}

TEST_CASE("special tokens that are looked for in normalised text are guarded as well") {
  const std::string json =
      with(small_tokenizer_json(),
           R"("content":"<|end|>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false)",
           R"("content":"<|end|>","single_word":false,"lstrip":false,"rstrip":false,"normalized":true)");
  const std::string plain = with(json, R"({"type":"NFC"})", "null");
  for (const std::string& normalised : {json, plain}) {
    CHECK(encode({{"<|end|>", false}}, normalised) == Ids{261});
    CHECK(encode({{"a<|end|>", true}, {"<|end|>", false}, {"<|end|>e\xCC\x81", true}, {"<|end|>", false}},
                 normalised) == [&] {
      Ids ids = encode({{"a<|end|>", true}}, normalised);
      ids.push_back(261);
      const Ids more = encode({{"<|end|>e\xCC\x81", true}}, normalised);
      ids.insert(ids.end(), more.begin(), more.end());
      ids.push_back(261);
      return ids;
    }());
  }
  // Where normalisation crosses into plain text, nothing is special.
  CHECK(encode({{"<|end|>e", false}, {"\xCC\x81", true}}, json).size() == 9);
}
