// UTF-8 and the byte-level alphabet of GPT-2: the characters that stand for bytes inside tokenizer.json.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace allmem {

// One step through possibly invalid UTF-8.
struct Utf8Step {
  char32_t code_point;  // meaningless unless valid
  uint32_t length;      // bytes taken: the character, or the longest invalid part that one U+FFFD replaces
  bool valid;
  bool incomplete;  // invalid only because the text ends inside a character
};

// Reads the character at text[pos]; pos < text.size().
Utf8Step utf8_step(std::string_view text, size_t pos);

bool is_valid_utf8(std::string_view text);

// `text` with every invalid part replaced by U+FFFD, as Python's bytes.decode("utf-8", errors="replace")
// does.
std::string replace_invalid_utf8(std::string_view text);

// How many leading bytes of `text` are settled: all but a character that the end of the text cuts in two.
size_t complete_utf8_prefix(std::string_view text);

// Start of the character that ends right before text[end]; text is valid UTF-8 and end > 0.
size_t utf8_previous(std::string_view text, size_t end);

void append_utf8(std::string& out, char32_t code_point);

// White_Space, the \s of both the Rust and the Oniguruma regex engines.
bool is_white_space(char32_t code_point);

// The bytes that `token` spells in the byte-level alphabet; nothing if a character is not of that alphabet.
std::optional<std::string> bytes_of_byte_level(std::string_view token);

}  // namespace allmem
