// The Split, Digits and ByteLevel steps over string views.
#include "tokenizer/pretokenizer.h"

#include <algorithm>

namespace allmem {
namespace {

using Behavior = SplitStep::Behavior;

// GPT-2's pattern, which ByteLevel has built in.
constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

struct Span {
  size_t begin, end;
  bool delimiter;
};

// Visits the whole text in order, as matches (delimiters, unless inverted) and what lies between them.
void each_span(const Regex& regex, std::string_view text, bool invert, Watch& watch,
               const std::function<void(const Span&)>& visit) {
  size_t done = 0;
  regex.for_each_match(text, watch, [&](Regex::Match match) {
    if (done != match.begin) visit({done, match.begin, invert});
    visit({match.begin, match.end, !invert});
    done = match.end;
  });
  if (done != text.size()) visit({done, text.size(), invert});
}

// Whether a span goes into one piece with the span before it.
bool joins(Behavior behavior, bool delimiter, bool delimiter_before) {
  switch (behavior) {
    case Behavior::kMergedWithPrevious:
      return delimiter && !delimiter_before;
    case Behavior::kMergedWithNext:
      return !delimiter && delimiter_before;
    case Behavior::kContiguous:
      return delimiter == delimiter_before;
    case Behavior::kIsolated:
    case Behavior::kRemoved:
      break;
  }
  return false;
}

}  // namespace

PreTokenizer::PreTokenizer(const TokenizerConfig& config, const std::string& name)
    : add_prefix_space_(config.add_prefix_space) {
  for (const SplitStep& split : config.splits) {
    const std::string where = name + ": pre_tokenizer pattern " + std::to_string(steps_.size());
    steps_.push_back({split.is_regex ? Regex::from_pattern(split.pattern, where)
                                     : Regex::from_literal(split.pattern, where),
                      split.behavior, split.invert});
  }
  if (config.use_gpt2_pattern) {
    byte_level_ = Step{Regex::from_pattern(kGpt2Pattern, name + ": ByteLevel"), Behavior::kIsolated, false};
  }
}

void PreTokenizer::apply(const Step& step, std::string_view text, Watch& watch, const Visit& visit) {
  std::optional<Span> piece;  // that the next span may belong to; `delimiter`: of its last span
  const auto hand_out = [&] {
    if (!piece || piece->begin == piece->end) return;
    if (step.behavior == Behavior::kRemoved && piece->delimiter) return;
    visit(text.substr(piece->begin, piece->end - piece->begin));
  };
  each_span(step.regex, text, step.invert, watch, [&](const Span& span) {
    if (piece && joins(step.behavior, span.delimiter, piece->delimiter)) {
      *piece = {piece->begin, span.end, span.delimiter};
    } else {
      hand_out();
      piece = span;
    }
  });
  hand_out();
}

void PreTokenizer::split_from(size_t step, std::string_view text, Watch& watch, const Visit& visit) const {
  if (step < steps_.size()) {
    apply(steps_[step], text, watch,
          [&](std::string_view piece) { split_from(step + 1, piece, watch, visit); });
    return;
  }
  std::string spaced;
  if (add_prefix_space_ && text.front() != ' ') {
    spaced.assign(1, ' ').append(text);
    text = spaced;
  }
  byte_level_ ? apply(*byte_level_, text, watch, visit) : visit(text);
}

void PreTokenizer::split(std::string_view text, Watch& watch, const Visit& visit) const {
  if (!text.empty()) split_from(0, text, watch, visit);
}

}  // namespace allmem
