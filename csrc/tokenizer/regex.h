// Regular expressions as Hugging Face `tokenizers` understands them (Oniguruma), run by PCRE2.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "tokenizer/watch.h"

namespace allmem {

// Immutable after construction; safe to share between threads.
class Regex {
 public:
  struct Match {
    size_t begin, end;  // byte offsets
  };

  // `pattern` is Oniguruma's syntax. `where` names file and field in the sentence of an Error: kBadTokenizer
  // if the pattern is malformed, kUnsupported if it uses a construct that PCRE2 would read differently.
  static Regex from_pattern(std::string_view pattern, const std::string& where);
  // Matches `text` itself.
  static Regex from_literal(std::string_view text, const std::string& where);

  // Calls `visit` for the successive matches in valid UTF-8. Throws Error (kUnsupported) when they
  // take more steps (Watch) or memory than any sensible pattern needs.
  void for_each_match(std::string_view text, Watch& watch, const std::function<void(Match)>& visit) const;

 private:
  struct Code;
  explicit Regex(std::shared_ptr<const Code> code) : code_(std::move(code)) {}
  std::shared_ptr<const Code> code_;
};

// The PCRE2 form of an Oniguruma pattern; throws as Regex::from_pattern does. Exposed for tests.
std::string translate_pattern(std::string_view pattern, const std::string& where);

}  // namespace allmem
