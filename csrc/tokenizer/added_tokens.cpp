// Leftmost-longest search for added tokens over a byte trie.
#include "tokenizer/added_tokens.h"

#include <algorithm>

#include "tokenizer/normalizer.h"
#include "tokenizer/regex.h"
#include "tokenizer/unicode.h"

namespace allmem {
namespace {

size_t skip_space_back(std::string_view text, size_t from, size_t limit, Watch& watch) {
  while (from > limit) {
    watch.did(1);
    const size_t previous = utf8_previous(text, from);
    if (!is_white_space(utf8_step(text, previous).code_point)) break;
    from = previous;
  }
  return std::max(from, limit);
}

size_t skip_space(std::string_view text, size_t from, Watch& watch) {
  while (from < text.size()) {
    watch.did(1);
    const Utf8Step step = utf8_step(text, from);
    if (!is_white_space(step.code_point)) break;
    from += step.length;
  }
  return from;
}

bool is_single_word(std::string_view text, size_t begin, size_t end) {
  const auto word_at = [&](size_t pos) {
    return is_word_character(text.substr(pos, utf8_step(text, pos).length));
  };
  return (begin == 0 || !word_at(utf8_previous(text, begin))) && (end == text.size() || !word_at(end));
}

enum class Overlap { kNone, kPartly, kWholly };

// How much of [begin, end) is plain.
Overlap overlap(std::span<const PlainRange> plain, size_t begin, size_t end) {
  const auto range =
      std::ranges::lower_bound(plain, begin + 1, {}, &PlainRange::end);  // the first to end after `begin`
  if (range == plain.end() || range->begin >= end) return Overlap::kNone;
  return range->begin <= begin && end <= range->end ? Overlap::kWholly : Overlap::kPartly;
}

}  // namespace

bool is_word_character(std::string_view character) {
  // Oniguruma's \w has the superscripts and fractions of Latin-1 that Rust's lacks, and lacks the joiners.
  static const Regex word = Regex::from_pattern(
      "(?![\\x{B2}\\x{B3}\\x{B9}\\x{BC}-\\x{BE}])[\\w\\x{200C}\\x{200D}]", "The pattern of word characters");
  bool matches = false;
  Watch nobody;
  word.for_each_match(character, nobody, [&](Regex::Match) { matches = true; });
  return matches;
}

AddedTokens::AddedTokens(std::span<const AddedToken> all, bool normalized, std::span<const NormalForm> forms)
    : accept_(1, -1), first_byte_(256, false) {
  Watch nobody;
  // Normalisation can make two contents equal: then special tokens win, and the file's order decides.
  for (const bool special : {true, false}) {
    for (const AddedToken& token : all) {
      if (token.special != special || token.normalized != normalized) continue;
      insert(normalized ? normalize(token.content, forms, nobody) : token.content, tokens_.size());
      tokens_.push_back(token);
    }
  }
}

void AddedTokens::insert(std::string_view content, size_t index) {
  uint32_t node = 0;
  for (const char c : content) {
    const auto byte = static_cast<uint8_t>(c);
    if (node == 0) first_byte_[byte] = true;
    const auto [edge, added] =
        edges_.try_emplace((uint64_t{node} << 8) | byte, static_cast<uint32_t>(accept_.size()));
    if (added) accept_.push_back(-1);
    node = edge->second;
  }
  if (accept_[node] < 0) accept_[node] = static_cast<int64_t>(index);
}

// The longest token at the leftmost place where one begins; a special one is no mixture of plain text and
// other.
bool AddedTokens::find(std::string_view text, size_t from, std::span<const PlainRange> plain, Watch& watch,
                       Found& out) const {
  for (size_t begin = from; begin < text.size(); ++begin) {
    watch.did(1);
    if (!first_byte_[static_cast<uint8_t>(text[begin])]) continue;
    uint32_t node = 0;
    int64_t best = -1;
    for (size_t pos = begin; pos < text.size(); ++pos) {
      watch.did(Watch::kLookup);
      const auto edge = edges_.find((uint64_t{node} << 8) | static_cast<uint8_t>(text[pos]));
      if (edge == edges_.end()) break;
      node = edge->second;
      if (accept_[node] < 0) continue;
      if (tokens_[static_cast<size_t>(accept_[node])].special &&
          overlap(plain, begin, pos + 1) == Overlap::kPartly) {
        continue;
      }
      best = accept_[node];
      out.end = pos + 1;
    }
    if (best < 0) continue;
    out.begin = begin;
    out.token = &tokens_[static_cast<size_t>(best)];
    return true;
  }
  return false;
}

void AddedTokens::split(std::string_view text, std::span<const PlainRange> plain, Watch& watch,
                        const std::function<void(std::string_view, int32_t)>& visit) const {
  size_t done = 0;       // end of what was visited
  size_t space_end = 0;  // of the white space that rstrip last took
  Found found{};
  // The search goes on after the token's own text even where rstrip took more, as in `tokenizers`: white
  // space can then be part of two tokens.
  for (size_t from = 0; !tokens_.empty() && find(text, from, plain, watch, found); from = found.end) {
    const AddedToken& token = *found.token;
    if (token.special && overlap(plain, found.begin, found.end) != Overlap::kNone) continue;
    if (token.single_word && !is_single_word(text, found.begin, found.end)) continue;
    const size_t begin = token.lstrip ? skip_space_back(text, found.begin, done, watch) : found.begin;
    // A token within that white space takes the rest of it, which is not read again.
    if (token.rstrip && found.end > space_end) space_end = skip_space(text, found.end, watch);
    const size_t end = token.rstrip ? space_end : found.end;
    if (done < begin) visit(text.substr(done, begin - done), -1);
    if (begin < end) visit(token.content, token.id);  // else the token before it took all of it
    done = end;
  }
  if (done < text.size()) visit(text.substr(done), -1);
}

}  // namespace allmem
