// UTF-8 decoding with Python's replacement rule, and the byte-level alphabet.
#include "tokenizer/unicode.h"

#include <array>

namespace allmem {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

bool is_continuation(uint8_t byte) { return (byte & 0xC0) == 0x80; }

// A byte stands for itself where Latin-1 prints it, and the others take U+0100, U+0101, ... in order.
bool stands_for_itself(uint32_t byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || (byte >= 0xAE && byte <= 0xFF);
}

constexpr int kAlphabetEnd = 0x144;  // one past the last character of the alphabet

// byte_of[c] is the byte that character c stands for, or -1.
std::array<int16_t, kAlphabetEnd> build_byte_of() {
  std::array<int16_t, kAlphabetEnd> byte_of;
  byte_of.fill(-1);
  size_t next = 0x100;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    byte_of[stands_for_itself(byte) ? byte : next++] = static_cast<int16_t>(byte);
  }
  return byte_of;
}

}  // namespace

Utf8Step utf8_step(std::string_view text, size_t pos) {
  const auto at = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t lead = at(pos);
  if (lead < 0x80) return {lead, 1, true, false};
  // The second byte's range excludes overlong forms, surrogates and what lies beyond U+10FFFF.
  uint32_t need = 0;
  uint8_t low = 0x80, high = 0xBF;
  char32_t code_point = 0;
  if (lead >= 0xC2 && lead <= 0xDF) {
    need = 1;
    code_point = lead & 0x1F;
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    need = 2;
    code_point = lead & 0x0F;
    if (lead == 0xE0) low = 0xA0;
    if (lead == 0xED) high = 0x9F;
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    need = 3;
    code_point = lead & 0x07;
    if (lead == 0xF0) low = 0x90;
    if (lead == 0xF4) high = 0x8F;
  } else {
    return {0, 1, false, false};
  }
  for (uint32_t i = 1; i <= need; ++i) {
    if (pos + i >= text.size()) return {0, i, false, true};
    const uint8_t byte = at(pos + i);
    const bool fits = i == 1 ? byte >= low && byte <= high : is_continuation(byte);
    if (!fits) return {0, i, false, false};
    code_point = (code_point << 6) | (byte & 0x3F);
  }
  return {code_point, need + 1, true, false};
}

bool is_valid_utf8(std::string_view text) {
  for (size_t pos = 0; pos < text.size();) {
    const Utf8Step step = utf8_step(text, pos);
    if (!step.valid) return false;
    pos += step.length;
  }
  return true;
}

std::string replace_invalid_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t pos = 0; pos < text.size();) {
    const Utf8Step step = utf8_step(text, pos);
    out += step.valid ? text.substr(pos, step.length) : kReplacement;
    pos += step.length;
  }
  return out;
}

size_t complete_utf8_prefix(std::string_view text) {
  // Only the last three bytes can belong to a character that is not yet whole.
  const size_t first = text.size() > 3 ? text.size() - 3 : 0;
  for (size_t pos = first; pos < text.size(); ++pos) {
    if (!is_continuation(static_cast<uint8_t>(text[pos])) && utf8_step(text, pos).incomplete) return pos;
  }
  return text.size();
}

size_t utf8_previous(std::string_view text, size_t end) {
  size_t pos = end - 1;
  while (pos > 0 && is_continuation(static_cast<uint8_t>(text[pos]))) --pos;
  return pos;
}

void append_utf8(std::string& out, char32_t code_point) {
  const auto push = [&](char32_t bits) { out += static_cast<char>(static_cast<uint8_t>(bits)); };
  if (code_point < 0x80) {
    push(code_point);
  } else if (code_point < 0x800) {
    push(0xC0 | (code_point >> 6));
    push(0x80 | (code_point & 0x3F));
  } else if (code_point < 0x10000) {
    push(0xE0 | (code_point >> 12));
    push(0x80 | ((code_point >> 6) & 0x3F));
    push(0x80 | (code_point & 0x3F));
  } else {
    push(0xF0 | (code_point >> 18));
    push(0x80 | ((code_point >> 12) & 0x3F));
    push(0x80 | ((code_point >> 6) & 0x3F));
    push(0x80 | (code_point & 0x3F));
  }
}

bool is_white_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

std::optional<std::string> bytes_of_byte_level(std::string_view token) {
  static const auto byte_of = build_byte_of();
  std::string bytes;
  bytes.reserve(token.size());
  for (size_t pos = 0; pos < token.size();) {
    const Utf8Step step = utf8_step(token, pos);
    if (!step.valid || step.code_point >= kAlphabetEnd || byte_of[step.code_point] < 0) return std::nullopt;
    bytes += static_cast<char>(static_cast<uint8_t>(byte_of[step.code_point]));
    pos += step.length;
  }
  return bytes;
}

}  // namespace allmem
