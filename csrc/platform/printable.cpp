// Text of unknown origin, made fit for a message.
#include "platform/printable.h"

#include <bit>
#include <cstdint>

namespace allmem {

namespace {

// Length of the UTF-8 character at the start of `text`; 0 when there is none, or only a control character.
size_t character_length(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  if (byte(0) < 0x80) return byte(0) >= 0x20 && byte(0) != 0x7F;
  const auto length = static_cast<size_t>(std::countl_one(byte(0)));
  if (length < 2 || length > 4 || length > text.size()) return 0;
  uint32_t code = byte(0) & (0x7Fu >> length);
  for (size_t i = 1; i < length; ++i) {
    if (byte(i) >> 6 != 2) return 0;
    code = code << 6 | (byte(i) & 0x3F);
  }
  constexpr uint32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
  const bool valid =
      code >= kLeast[length] && code <= 0x10FFFF && (code < 0xD800 || code > 0xDFFF) && code > 0x9F;
  return valid ? length : 0;
}

}  // namespace

std::string printable(std::string_view text) {
  constexpr size_t kMost = 1000, kTail = 300;
  std::string result;
  while (!text.empty()) {
    if (result.size() > kMost - kTail && text.size() > kTail) {
      result += "…";
      text.remove_prefix(text.size() - kTail);
    }
    const size_t length = character_length(text);
    result += length == 0 ? "?" : text.substr(0, length);
    text.remove_prefix(length == 0 ? 1 : length);
  }
  return result;
}

}  // namespace allmem
