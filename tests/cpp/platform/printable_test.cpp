// Text made fit for a message: one line of valid UTF-8, not too long.
#include "platform/printable.h"

#include <doctest/doctest.h>

using allmem::printable;

TEST_CASE("text that is fit for a message stays as it is") {
  for (const char* text :
       {"", "plain", "é ß 漢字 🙂", "\xC2\xA0", "\xEF\xBF\xBF", "\xF4\x8F\xBF\xBF"}) {
    CHECK(printable(text) == text);
  }
}

TEST_CASE("control characters, of one byte or two, become question marks") {
  CHECK(printable("a\nb\tc\x1B[31m\x7F") == "a?b?c?[31m?");
  CHECK(printable(std::string_view("\0x", 2)) == "?x");
  CHECK(printable("\xC2\x85") == "??");  // U+0085, next line
}

TEST_CASE("each byte of invalid UTF-8 becomes a question mark") {
  CHECK(printable("\x80") == "?");
  CHECK(printable("a\xFFz") == "a?z");
  CHECK(printable("\xC0\xAF") == "??");                 // an overlong slash
  CHECK(printable("\xED\xA0\x80") == "???");            // a surrogate
  CHECK(printable("\xF4\x90\x80\x80") == "????");       // beyond U+10FFFF
  CHECK(printable("\xF8\x88\x80\x80\x80") == "?????");  // five bytes
  CHECK(printable("\xE6\xBC") == "??");                 // cut short
}

TEST_CASE("of a very long text the beginning and the end are left") {
  const std::string text = "begin" + std::string(1'000'000, 'x') + "end";
  const std::string shown = printable(text);
  CHECK(shown.size() < 1100);
  CHECK(shown.starts_with("beginx"));
  CHECK(shown.ends_with("xend"));
  CHECK(shown.find("…") != std::string::npos);
}
