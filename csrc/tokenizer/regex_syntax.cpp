// Rewrites Oniguruma's regular expressions for PCRE2: what both read alike passes, what they read differently
// is spelled out, and what cannot be spelled out is refused, so that a pattern never matches something else
// than it should.
#include <algorithm>
#include <array>

#include "platform/error.h"
#include "tokenizer/regex.h"
#include "tokenizer/unicode.h"
#include "tokenizer/unicode_versions.h"

namespace allmem {
namespace {

constexpr size_t kMaxPatternBytes = size_t{64} * 1024;

// The inside of a class that equals Oniguruma's \w: PCRE2's own has no marks and, by version, no connectors;
// Latin-1's superscripts and fractions are an oddity of Oniguruma's.
constexpr std::string_view kWord = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{B2}\x{B3}\x{B9}\x{BC}-\x{BE})";

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_hex(char c) { return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }
bool is_alnum(char c) { return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

class Translator {
 public:
  Translator(std::string_view pattern, const std::string& where) : in_(pattern), where_(where) {}

  std::string run() {
    if (in_.size() > kMaxPatternBytes) unsupported("more than 64 KiB");
    if (!is_valid_utf8(in_) || has_stand_in(in_)) unsupported("a character of a recent Unicode version");
    while (!done()) step();
    return std::move(out_);
  }

 private:
  bool done() const { return pos_ >= in_.size(); }
  char peek(size_t ahead = 0) const { return pos_ + ahead < in_.size() ? in_[pos_ + ahead] : '\0'; }
  bool starts_with(std::string_view prefix) const { return in_.substr(pos_).starts_with(prefix); }
  void take(size_t count) {
    out_ += in_.substr(pos_, count);
    pos_ += count;
  }
  void replace(size_t count, std::string_view text) {
    out_ += text;
    pos_ += count;
  }
  [[noreturn]] void unsupported(std::string_view what) const {
    throw Error(ErrorCode::kUnsupported, where_ + " uses " + std::string(what) + " at byte " +
                                             std::to_string(pos_) +
                                             " of the pattern, which this tokenizer does not support.");
  }

  void step() {
    switch (peek()) {
      case '\\':
        return escape(false);
      case '[':
        return character_class();
      case '(':
        return group();
      case '{':
        return braces();
      case '*':
      case '+':
      case '?':
        take(1);
        if (peek() == '?' || peek() == '+') take(1);
        return no_second_quantifier();
      default:
        return take(1);
    }
  }

  // Oniguruma repeats what is already repeated; PCRE2 refuses most of that and reads the rest differently.
  void no_second_quantifier() const {
    const char c = peek();
    if (c == '*' || c == '+' || c == '?') unsupported("a quantifier on a quantifier");
  }

  // {n}, {n,}, {n,m} and {,m}; the last is literal text to older PCRE2.
  void braces() {
    size_t end = pos_ + 1;
    while (end < in_.size() && (is_digit(in_[end]) || in_[end] == ',')) ++end;
    const std::string_view body = in_.substr(pos_ + 1, end - pos_ - 1);
    if (end >= in_.size() || in_[end] != '}' || body.empty() || body == "," ||
        std::count(body.begin(), body.end(), ',') > 1) {
      unsupported("a brace that is not a quantifier");
    }
    take(1);
    if (body.front() == ',') out_ += '0';
    take(body.size() + 1);
    if (peek() == '?' && body.find(',') != std::string_view::npos) return take(1);
    no_second_quantifier();
  }

  void group() {
    static constexpr std::array<std::string_view, 7> kOpenings = {
        "(?:", "(?=", "(?!", "(?<=", "(?<!", "(?i:", "(?>"};
    if (peek(1) != '?') {
      if (peek(1) == '*') unsupported("a group that begins with *");
      return take(1);
    }
    for (const std::string_view opening : kOpenings) {
      if (starts_with(opening)) return take(opening.size());
    }
    unsupported("a group other than (...), (?:...), (?i:...), (?>...) and the lookarounds");
  }

  void escape(bool in_class) {
    const char c = peek(1);
    switch (c) {
      case '\0':
        unsupported("a backslash without a character");
      case 'n':
      case 'r':
      case 't':
      case 'f':
      case 'd':
      case 'D':
      case 's':
      case 'S':
        return take(2);
      case 'v':
        return replace(2, "\\x0B");  // to PCRE2 every vertical space
      case 'h':
        return replace(2, in_class ? "0-9a-fA-F" : "[0-9a-fA-F]");  // to PCRE2 horizontal space
      case 'w':
        return replace(2, in_class ? std::string(kWord) : "[" + std::string(kWord) + "]");
      case 'W':
        if (in_class) unsupported("\\W inside a class");
        return replace(2, "[^" + std::string(kWord) + "]");
      case 'A':
      case 'z':
        if (in_class) unsupported("an anchor inside a class");
        return take(2);
      case 'x':
        return hex_escape();
      case 'u':
        return code_point_escape(2, 4);
      case 'p':
      case 'P':
        return property();
      default:
        if (is_alnum(c) || static_cast<unsigned char>(c) >= 0x80) {
          unsupported("the escape \\" + std::string(1, static_cast<unsigned char>(c) < 0x80 ? c : '?'));
        }
        return take(2);
    }
  }

  // \xHH below 80 and \x{H...}; above 7F Oniguruma's \xHH is a byte, not a character.
  void hex_escape() {
    if (peek(2) != '{') {
      if (!is_digit(peek(2)) || peek(2) > '7' || !is_hex(peek(3))) unsupported("a byte escape");
      return take(4);
    }
    size_t digits = 0;
    while (digits < 7 && is_hex(peek(3 + digits))) ++digits;
    if (digits == 0 || peek(3 + digits) != '}') unsupported("a malformed \\x{...}");
    code_point_escape(3, digits);
    ++pos_;  // the closing brace
  }

  void code_point_escape(size_t prefix, size_t digits) {
    char32_t value = 0;
    for (size_t i = 0; i < digits; ++i) {
      const char c = peek(prefix + i);
      if (!is_hex(c)) unsupported("a malformed character escape");
      value = value * 16 + static_cast<char32_t>(is_digit(c) ? c - '0' : (c | 0x20) - 'a' + 10);
    }
    std::string character;
    if (value <= 0x10FFFF && (value < 0xD800 || value > 0xDFFF)) append_utf8(character, value);
    if (character.empty() || has_stand_in(character)) unsupported("a character escape that it cannot match");
    replace(prefix + digits, "\\x{" + std::string(in_.substr(pos_ + prefix, digits)) + "}");
  }

  // General categories, and the scripts for which unicode_versions.cpp keeps stand-ins apart.
  void property() {
    static constexpr std::array<std::string_view, 37> kCategories = {
        "L",  "Lu", "Ll", "Lt", "Lm", "Lo", "M",  "Mn", "Mc", "Me", "N",  "Nd", "Nl",
        "No", "P",  "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "S",  "Sm", "Sc", "Sk",
        "So", "Z",  "Zs", "Zl", "Zp", "C",  "Cc", "Cf", "Cn", "Co", "Cs"};
    static constexpr std::array<std::string_view, 4> kScripts = {"Han", "Hiragana", "Katakana", "Hangul"};
    const size_t close = in_.find('}', pos_);
    if (peek(2) != '{' || close == std::string_view::npos) unsupported("a \\p without braces");
    std::string_view name = in_.substr(pos_ + 3, close - pos_ - 3);
    bool negated = peek(1) == 'P';
    if (name.starts_with('^')) {
      negated = !negated;
      name.remove_prefix(1);
    }
    const bool category = std::find(kCategories.begin(), kCategories.end(), name) != kCategories.end();
    const bool script = std::find(kScripts.begin(), kScripts.end(), name) != kScripts.end();
    if (!category && !script) unsupported("a Unicode property that is no general category");
    // Without "sc:" PCRE2 would take script extensions too.
    replace(close + 1 - pos_,
            (negated ? "\\P{" : "\\p{") + std::string(script ? "sc:" : "") + std::string(name) + "}");
  }

  void character_class() {
    take(1);
    if (peek() == '^') take(1);
    if (peek() == ']') unsupported("a class that is empty or begins with ]");
    while (peek() != ']') {
      if (done()) unsupported("a class that does not end");
      if (starts_with("&&")) unsupported("an intersection of classes");
      if (peek() == '[') unsupported("a class inside a class");
      if (peek() == '\\') {
        escape(true);
      } else {
        take(1);
      }
    }
    take(1);
  }

  std::string_view in_;
  const std::string& where_;
  std::string out_;
  size_t pos_ = 0;
};

}  // namespace

std::string translate_pattern(std::string_view pattern, const std::string& where) {
  return Translator(pattern, where).run();
}

}  // namespace allmem
