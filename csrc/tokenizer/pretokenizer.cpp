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

// The whole text as matches (delimiters, unless inverted) and what lies between them.
std::vector<Span> find_spans(const Regex& regex, std::string_view text, bool invert,
                             const PreTokenizer::Watch& watch) {
  std::vector<Span> spans;
  size_t done = 0;
  regex.for_each_match(text, [&](Regex::Match match) {
    if (done != match.begin) spans.push_back({done, match.begin, invert});
    spans.push_back({match.begin, match.end, !invert});
    if (watch) watch(match.end - done);
    done = match.end;
  });
  if (done != text.size()) spans.push_back({done, text.size(), invert});
  return spans;
}

// Joins neighbours: a delimiter with what is before it, or everything alike (contiguous).
std::vector<Span> join(const std::vector<Span>& spans, bool contiguous) {
  std::vector<Span> joined;
  bool previous = false;  // whether the last span was a delimiter
  for (const Span& span : spans) {
    const bool joins = contiguous ? span.delimiter == previous : span.delimiter && !previous;
    if (joins && !joined.empty()) {
      joined.back().begin = std::min(joined.back().begin, span.begin);
      joined.back().end = std::max(joined.back().end, span.end);
    } else {
      joined.push_back(span);
    }
    previous = span.delimiter;
  }
  return joined;
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

void PreTokenizer::apply(const Step& step, std::string_view text, std::vector<std::string_view>& out,
                         const Watch& watch) {
  std::vector<Span> spans = find_spans(step.regex, text, step.invert, watch);
  if (step.behavior == Behavior::kMergedWithPrevious || step.behavior == Behavior::kContiguous) {
    spans = join(spans, step.behavior == Behavior::kContiguous);
  } else if (step.behavior == Behavior::kMergedWithNext) {
    std::reverse(spans.begin(), spans.end());
    spans = join(spans, false);
    std::reverse(spans.begin(), spans.end());
  }
  for (const Span& span : spans) {
    const bool removed = step.behavior == Behavior::kRemoved && span.delimiter;
    if (!removed && span.begin < span.end) out.push_back(text.substr(span.begin, span.end - span.begin));
  }
}

void PreTokenizer::split(std::string_view text, const std::function<void(std::string_view)>& visit,
                         const Watch& watch) const {
  if (text.empty()) return;
  std::vector<std::string_view> pieces{text}, next;
  for (const Step& step : steps_) {
    next.clear();
    for (const std::string_view piece : pieces) apply(step, piece, next, watch);
    pieces.swap(next);
  }
  std::string spaced;
  for (std::string_view piece : pieces) {
    if (add_prefix_space_ && piece.front() != ' ') {
      spaced.assign(1, ' ').append(piece);
      piece = spaced;
    }
    if (!byte_level_) {
      visit(piece);
      continue;
    }
    next.clear();
    apply(*byte_level_, piece, next, watch);
    for (const std::string_view word : next) visit(word);
  }
}

}  // namespace allmem
