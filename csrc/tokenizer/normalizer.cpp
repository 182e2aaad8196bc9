// NFC, NFD, NFKC, NFKD from utf8proc's tables. utf8proc's own loop is not used because it sorts combining
// marks in quadratic time, and because characters newer than `tokenizers`' tables have to be left alone.
#include "tokenizer/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <new>
#include <vector>

#include "tokenizer/unicode.h"
#include "tokenizer/unicode_versions.h"

namespace allmem {
namespace {

using CodePoints = std::vector<utf8proc_int32_t>;

// How many characters are composed at a time, so that a text without ASCII is not composed in one long call.
constexpr size_t kComposed = 4096;

int combining_class(utf8proc_int32_t code_point) {
  return utf8proc_get_property(code_point)->combining_class;
}

void append_decomposed(CodePoints& out, char32_t code_point, bool compatible) {
  constexpr utf8proc_ssize_t kLongest = 32;  // Unicode's longest decomposition has 18 characters
  utf8proc_int32_t parts[kLongest];
  const int options = UTF8PROC_DECOMPOSE | (compatible ? UTF8PROC_COMPAT : 0);
  int boundary = 0;
  const utf8proc_ssize_t count =
      utf8proc_decompose_char(static_cast<utf8proc_int32_t>(code_point), parts, kLongest,
                              static_cast<utf8proc_option_t>(options), &boundary);
  if (count < 0 || count > kLongest) {
    out.push_back(static_cast<utf8proc_int32_t>(code_point));
  } else {
    out.insert(out.end(), parts, parts + count);
  }
}

// Canonical order: within a run of combining marks, by class, equal classes as they came.
void order_marks(CodePoints& text, Watch& watch) {
  for (auto begin = text.begin(); begin != text.end();) {
    if (combining_class(*begin) == 0) {
      ++begin;
      continue;
    }
    const auto end = std::find_if(begin, text.end(), [](auto c) { return combining_class(c) == 0; });
    if (end - begin > 1) {
      std::stable_sort(begin, end, [&](auto a, auto b) {
        watch.did(Watch::kLookup);
        return combining_class(a) < combining_class(b);
      });
    }
    begin = end;
  }
}

// Appends the normal form of the first `count` characters of the decomposed `text` to `out` and leaves the
// rest, which begins with a character that no mark before it is ordered after. What that one may be composed
// with stays before it.
void flush(CodePoints& text, size_t count, bool compose, std::string& out, Watch& watch) {
  if (count == 0) return;
  CodePoints rest(text.begin() + static_cast<ptrdiff_t>(count), text.end());
  text.resize(count);
  order_marks(text, watch);
  if (compose) {
    const utf8proc_ssize_t length =
        utf8proc_normalize_utf32(text.data(), static_cast<utf8proc_ssize_t>(text.size()),
                                 static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
    if (length < 0) throw std::bad_alloc();  // the one error that valid input leaves possible
    text.resize(static_cast<size_t>(length));
    if (!rest.empty() && combining_class(text.back()) == 0) {
      rest.insert(rest.begin(), text.back());
      text.pop_back();
    }
  }
  for (const utf8proc_int32_t code_point : text) append_utf8(out, static_cast<char32_t>(code_point));
  text.assign(rest.begin(), rest.end());
}

std::string normalize_once(std::string_view text, NormalForm form, Watch& watch) {
  const bool compose = form == NormalForm::kNfc || form == NormalForm::kNfkc;
  const bool compatible = form == NormalForm::kNfkc || form == NormalForm::kNfkd;
  std::string out;
  out.reserve(text.size());
  CodePoints pending;
  for (size_t pos = 0; pos < text.size();) {
    watch.did(Watch::kLookup);
    const Utf8Step step = utf8_step(text, pos);
    pos += step.length;
    if (is_newer_than_normalization(step.code_point)) {
      flush(pending, pending.size(), compose, out, watch);
      append_utf8(out, step.code_point);
      continue;
    }
    // ASCII never changes and nothing reorders across it; only its last character can begin a composition.
    if (step.code_point < 0x80) flush(pending, pending.size(), compose, out, watch);
    const size_t before = pending.size();
    append_decomposed(pending, step.code_point, compatible);
    if (before >= kComposed && combining_class(pending[before]) == 0)
      flush(pending, before, compose, out, watch);
  }
  flush(pending, pending.size(), compose, out, watch);
  return out;
}

}  // namespace

std::string normalize(std::string_view text, std::span<const NormalForm> forms, Watch& watch) {
  std::string out(text);
  for (const NormalForm form : forms) out = normalize_once(out, form, watch);
  return out;
}

}  // namespace allmem
