// Where Hugging Face `tokenizers` and the Unicode libraries used here know different versions of Unicode.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "tokenizer/watch.h"

namespace allmem {

// `tokenizers` splits text with Oniguruma, which knows Unicode 16; PCRE2 may know less (10.42: 14). Returns
// `text` with each character on which they may differ replaced by an older one of the same general category,
// CJK script and UTF-8 length, so that offsets stay and both engines match alike. `storage` holds the copy if
// one is needed.
std::string_view with_stand_ins(std::string_view text, std::string& storage, Watch& watch);

// True if some character of `text` has a stand-in (which a regular expression then could not name).
bool has_stand_in(std::string_view text);

// `tokenizers` normalises with the tables of Unicode 9. True for characters that later versions decompose,
// compose or reorder: it leaves them alone, so we must.
bool is_newer_than_normalization(char32_t code_point);

}  // namespace allmem
