// Builds the JSON text of the test tokenizer.
#include "fixture.h"

#include <doctest/doctest.h>

#include "tokenizer/unicode.h"

namespace allmem::test {
namespace {

std::string byte_character(unsigned byte) {
  unsigned next = 0x100;
  std::string out;
  for (unsigned b = 0; b <= byte; ++b) {
    const bool itself = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b != 0xAD);
    if (b == byte) append_utf8(out, itself ? b : next);
    if (!itself) ++next;
  }
  return out;
}

}  // namespace

std::string small_tokenizer_json() {
  std::string vocab;
  for (unsigned byte = 0; byte < 256; ++byte) {
    std::string key = byte_character(byte);
    if (key == "\"" || key == "\\") key = "\\" + key;
    vocab += "\"" + key + "\":" + std::to_string(byte) + ",";
  }
  vocab += R"("he":256,"ll":257,"hell":258,"hello":259,"Ġhello":260)";
  return R"({"version":"1.0","truncation":null,"padding":null,
"added_tokens":[
{"id":261,"content":"<|end|>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true},
{"id":262,"content":"<|endless|>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":false}],
"normalizer":{"type":"NFC"},
"pre_tokenizer":{"type":"Sequence","pretokenizers":[
{"type":"Split","pattern":{"Regex":" ?\\p{L}+|\\p{N}|\\s+(?!\\S)|\\s+"},"behavior":"Isolated","invert":false},
{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":false,"use_regex":false}]},
"post_processor":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":false,"use_regex":false},
"decoder":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":false,"use_regex":false},
"model":{"type":"BPE","dropout":null,"unk_token":null,"continuing_subword_prefix":"","end_of_word_suffix":"",
"fuse_unk":false,"byte_fallback":false,"ignore_merges":false,"vocab":{)" +
         vocab + R"(},"merges":["h e",["l","l"],"he ll","hell o","Ġ hello"]}})";
}

std::string with(std::string json, const std::string& from, const std::string& to) {
  const size_t at = json.find(from);
  REQUIRE_MESSAGE(at != std::string::npos, from);
  REQUIRE_MESSAGE(json.find(from, at + 1) == std::string::npos, from);
  return json.replace(at, from.size(), to);
}

}  // namespace allmem::test
