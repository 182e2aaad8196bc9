// What the tokenizer promises on text: ids, bytes, streams.
#include "tokenizer/tokenizer.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <ctime>
#include <numeric>

#include "../temp_dir.h"
#include "fixture.h"
#include "platform/error.h"

using allmem::Error;
using allmem::ErrorCode;
using allmem::StreamDecoder;
using Ids = std::vector<int32_t>;
using allmem::test::load;
using allmem::test::small_tokenizer_json;
using allmem::test::TempDir;
using allmem::test::with;

TEST_CASE("merges apply in order of rank and never cross a piece") {
  const auto tokenizer = load(small_tokenizer_json());
  CHECK(tokenizer->encode("hello hello") == Ids{259, 260});
  CHECK(tokenizer->encode("hell") == Ids{258});
  CHECK(tokenizer->encode("he1ll") == Ids{256, '1', 257});
  CHECK(tokenizer->encode("lll") == Ids{257, 'l'});
  CHECK(tokenizer->encode("").empty());
  CHECK(tokenizer->vocab_size() == 263);
}

TEST_CASE("ignore_merges takes a whole piece that no merge makes") {
  const std::string json =
      with(small_tokenizer_json(), R"(["l","l"],)", "");  // "hell" cannot be merged any more
  const std::string no_hell = with(with(json, R"("he ll",)", ""), R"("hell o",)", "");
  CHECK(load(no_hell)->encode("hell") == Ids{256, 'l', 'l'});
  CHECK(load(with(no_hell, R"("ignore_merges":false)", R"("ignore_merges":true)"))->encode("hell") ==
        Ids{258});
}

TEST_CASE("added tokens: the longest at the leftmost place, special ones only on request") {
  const auto tokenizer = load(small_tokenizer_json());
  CHECK(tokenizer->encode("<|end|><|endless|>") == Ids{261, 262});
  CHECK(tokenizer->encode("<|end|>", false) == Ids{'<', '|', 'e', 'n', 'd', '|', '>'});
  CHECK(tokenizer->encode("<|endless|>", false) == Ids{262});
  CHECK(tokenizer->is_special(261));
  CHECK_FALSE(tokenizer->is_special(262));
  CHECK(tokenizer->token_id("<|end|>") == 261);
  CHECK(tokenizer->token_id("Ġhello") == 260);
  CHECK_FALSE(tokenizer->token_id("absent"));
}

TEST_CASE("lstrip and rstrip take white space, single_word refuses a word's neighbour") {
  const std::string json = small_tokenizer_json();
  const std::string flags = R"("content":"<|end|>","single_word":false,"lstrip":false,"rstrip":false)";
  const auto variant = [&](const char* values) {
    return load(with(json, flags, R"("content":"<|end|>",)" + std::string(values)));
  };
  const auto strips = variant(R"("single_word":false,"lstrip":true,"rstrip":true)");
  CHECK(strips->encode("a \t<|end|>\xE2\x80\x83 b") == Ids{'a', 261, 'b'});
  const auto word = variant(R"("single_word":true,"lstrip":false,"rstrip":false)");
  CHECK(word->encode(".<|end|>.") == Ids{'.', 261, '.'});
  CHECK(word->encode("a<|end|>").size() == 8);
  CHECK(word->encode("<|end|>_").size() == 8);
}

TEST_CASE("text is normalised, and characters newer than the reference tables are left alone") {
  const auto tokenizer = load(small_tokenizer_json());
  CHECK(tokenizer->encode("e\xCC\x81") == tokenizer->encode("\xC3\xA9"));
  const std::string recent = "\xF0\x96\xB5\xA7\xF0\x96\xB5\xA7";  // U+16D67 twice: Unicode 16 composes them
  CHECK(tokenizer->decode(tokenizer->encode(recent)) == recent);
}

TEST_CASE("a long text without ASCII has the normal form of its parts, wherever it is cut for that") {
  const auto tokenizer = load(small_tokenizer_json());
  // What the character before may be composed with, and what may not be moved before it.
  for (const std::string_view unit :
       {"\xE1\x84\x92\xE1\x85\xA1\xE1\x86\xAB",         // jamo: one syllable
        "\xED\x95\x98\xE1\x86\xAB",                     // a syllable and its end
        "\xE0\xA7\x87\xE0\xA6\xBE",                     // U+09C7 U+09BE: two starters that compose
        "\xC3\xA9\xCC\xA7\xCC\x81",                     // marks to be ordered
        "\xE6\xBC\xA2\xCC\x81\xE0\xBD\xB3\xCC\xA7"}) {  // U+0F73: decomposes into marks, and is none itself
    CAPTURE(unit);
    const auto one = tokenizer->encode(unit);
    for (size_t shift = 0; shift < 3; ++shift) {
      std::string text;
      std::vector<int32_t> wanted;
      for (size_t i = 0; i < shift; ++i) {
        text += "\xE6\xBC\xA2";
        wanted.insert(wanted.end(), {0xE6, 0xBC, 0xA2});
      }
      for (size_t i = 0; i < 20000; ++i) {
        text += unit;
        wanted.insert(wanted.end(), one.begin(), one.end());
      }
      CHECK(tokenizer->encode(text) == wanted);
    }
  }
}

TEST_CASE("invalid UTF-8 is read as Python reads it with errors=replace") {
  const auto tokenizer = load(small_tokenizer_json());
  const std::string r = "\xEF\xBF\xBD";
  const auto decoded = [&](std::string_view text) { return tokenizer->decode(tokenizer->encode(text)); };
  CHECK(decoded("a\xFFz") == "a" + r + "z");
  CHECK(decoded("\xE4\xBD") == r);              // a cut character: one
  CHECK(decoded("\xE4\xBDz") == r + "z");       // the same inside text
  CHECK(decoded("\xC0\xAF") == r + r);          // overlong
  CHECK(decoded("\xED\xA0\x80") == r + r + r);  // a surrogate
  CHECK(decoded("\xF4\x90\x80\x80") == r + r + r + r);
  CHECK(decoded("\xF0\x9F\x98") == r);
}

TEST_CASE("a stream of tokens gives whole characters only, and together the decoded text") {
  const auto tokenizer = load(small_tokenizer_json());
  Ids ids = tokenizer->encode("h\xC3\xA9llo \xF0\x9F\x98\x80<|end|>!");
  ids.insert(ids.begin(), {0xE4, 0xBD, 0xFF, 0xF0});  // broken sequences, and one that stays open
  ids.push_back(0xF0);
  ids.push_back(0x9F);
  for (const bool skip : {true, false}) {
    StreamDecoder stream(tokenizer, skip);
    std::string joined;
    for (const int32_t id : ids) joined += stream.push(id);
    CHECK(joined + stream.flush() == tokenizer->decode(ids, skip));
    CHECK(stream.flush().empty());
  }
  StreamDecoder stream(tokenizer);
  CHECK(stream.push(0xF0).empty());
  CHECK(stream.push(0x9F).empty());
  CHECK(stream.push(0x98).empty());
  CHECK(stream.push(0x80) == "\xF0\x9F\x98\x80");
}

TEST_CASE("a text of invalid bytes and characters is the same wherever it is cut into slices") {
  const auto tokenizer = load(small_tokenizer_json());
  for (const std::string_view unit :
       {"\xF0\x9F\x98\x80", "\xE4\xBD", "\xED\xA0\x80", "\xF0\x9F\x98", "\xC3"}) {
    const auto one = tokenizer->decode(tokenizer->encode(unit));
    for (size_t shift = 0; shift < 4; ++shift) {
      std::string text(shift, 'a'), wanted = text;
      while (text.size() < 3 << 16) {
        text += unit;
        wanted += one;
      }
      CHECK(tokenizer->decode(tokenizer->encode(text)) == wanted);
    }
  }
}

TEST_CASE("ids out of range are refused") {
  const auto tokenizer = load(small_tokenizer_json());
  for (const int32_t id : {-1, 263, INT32_MAX, INT32_MIN}) {
    CHECK_THROWS_AS(tokenizer->decode(Ids{id}), Error);
    CHECK_THROWS_AS(tokenizer->token_bytes(id), Error);
    CHECK_THROWS_AS(tokenizer->is_special(id), Error);
  }
}

TEST_CASE("a file that does not exist and a directory are Errors") {
  const auto code_of = [](const std::string& path) {
    try {
      allmem::Tokenizer::from_file(path);
    } catch (const Error& error) {
      return error.code();
    }
    return ErrorCode::kCancelled;
  };
  CHECK(code_of("/nonexistent/tokenizer.json") == ErrorCode::kNotFound);
  const TempDir directory;
  CHECK(code_of(directory.path()) == ErrorCode::kIo);
  CHECK(code_of(directory.write("empty", "")) == ErrorCode::kBadTokenizer);
}

TEST_CASE("whoever waits for a long text is asked again and again whether to go on, whatever the text is") {
  const auto tokenizer = load(small_tokenizer_json());
  const auto repeated = [](std::string_view unit) {
    std::string text;
    while (text.size() < size_t{1} << 20) text += unit;
    return text;
  };
  for (const std::string_view unit :
       {"I saw a red fox in the park. ", "l", "<|end|>", "\xE6\xBC\xA2", "e\xCC\x81", "\xCC\x81\xCC\xA7",
        "\xE1\x84\x92\xE1\x85\xA1\xE1\x86\xAB", "caf\xFF ", " \n  "}) {
    CAPTURE(unit);
    const std::string text = repeated(unit);
    size_t asks = 0;
    const std::clock_t begin = std::clock();
    std::clock_t last = begin, longest = 0;
    const auto whole = tokenizer->encode(text, true, [&] {
      const std::clock_t now = std::clock();
      longest = std::max(longest, now - last);
      last = now;
      ++asks;
      return true;
    });
    const std::clock_t end = std::clock();
    CHECK(asks >= 12);
    CHECK(std::max(longest, end - last) <= (end - begin) / 4 + CLOCKS_PER_SEC / 100);
    CHECK(tokenizer->encode(text) == whole);
    for (const size_t stop : {size_t{1}, asks / 2, asks}) {
      size_t left = stop;
      try {
        tokenizer->encode(text, true, [&] { return --left > 0; });
        FAIL("went on");
      } catch (const Error& error) {
        CHECK(error.code() == ErrorCode::kCancelled);
        CHECK(left == 0);
      }
    }
  }
}

TEST_CASE("a megabyte of one letter or of white space does not go quadratic") {
  const auto tokenizer = load(small_tokenizer_json());
  const size_t size = 1 << 20;
  CHECK(tokenizer->encode(std::string(size, 'l')).size() == size / 2);
  CHECK(tokenizer->encode(std::string(size, ' ') + "x").size() == size + 1);
  // Each token of white space takes all that follows it, and the next is found in what it took.
  const std::string takes_all = with(
      small_tokenizer_json(), R"("content":"<|endless|>","single_word":false,"lstrip":false,"rstrip":false)",
      R"("content":" ","single_word":false,"lstrip":false,"rstrip":true)");
  CHECK(load(takes_all)->encode(std::string(size, ' ')) == Ids(size, 262));
  std::string mixed;
  for (size_t i = 0; i < size / 2; ++i) mixed += " \t";
  CHECK(load(with(takes_all, R"("content":"<|end|>")", R"("content":"\t")"))->encode(mixed).size() == size);
  std::string marks;  // combining marks in the worst order for a bubble sort
  for (size_t i = 0; i < size / 4; ++i) marks += "\xCC\x81";
  for (size_t i = 0; i < size / 4; ++i) marks += "\xCC\xA7";
  CHECK(tokenizer->encode(marks).size() == size);
}
