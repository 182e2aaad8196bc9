// Compiles and runs the translated patterns with PCRE2.
#define PCRE2_CODE_UNIT_WIDTH 8
#include "tokenizer/regex.h"

#include <pcre2.h>

#include <algorithm>

#include "platform/error.h"
#include "tokenizer/unicode.h"
#include "tokenizer/unicode_versions.h"

namespace allmem {
namespace {

template <auto kFree>
struct Deleter {
  template <typename T>
  void operator()(T* object) const {
    kFree(object);
  }
};
using CodePtr = std::unique_ptr<pcre2_code, Deleter<pcre2_code_free>>;
using CompileContextPtr = std::unique_ptr<pcre2_compile_context, Deleter<pcre2_compile_context_free>>;
using MatchContextPtr = std::unique_ptr<pcre2_match_context, Deleter<pcre2_match_context_free>>;
using MatchDataPtr = std::unique_ptr<pcre2_match_data, Deleter<pcre2_match_data_free>>;
using JitStackPtr = std::unique_ptr<pcre2_jit_stack, Deleter<pcre2_jit_stack_free>>;

// PCRE2 counts the steps of each place where a match may begin. A split pattern takes few of them, but for
// runs of white space: backtracking takes one for each character. More than the few are paid for (Watch), so
// they are allowed bit by bit, and to one place at a time: nobody can ask PCRE2 how many it took.
constexpr uint32_t kFewSteps = 512;
constexpr uint32_t kMoreSteps = 4;              // times as many
constexpr uint32_t kMostSteps = 5'000'000;      // and four for each byte of the text: what one call may last
constexpr uint32_t kMatchHeapKib = 256 * 1024;  // far above what a split pattern needs
// How many bytes PCRE2 searches for the beginning of a match at a time, each with few steps.
constexpr size_t kSearched = 32;
// A place may, in one step, pass over all of the text behind it: so many bytes at the cost of one (Watch).
constexpr size_t kPassedFast = 1024;
constexpr size_t kJitStackStart = size_t{32} << 10, kJitStackMax = size_t{4} << 20;

std::string message_of(int error) {
  PCRE2_UCHAR text[256];
  pcre2_get_error_message(error, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

CodePtr compile(std::string_view pattern, uint32_t options, const std::string& where) {
  CompileContextPtr context(pcre2_compile_context_create(nullptr));
  if (!context) throw std::bad_alloc();
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  pcre2_set_parens_nest_limit(context.get(), 100);
  int error = 0;
  PCRE2_SIZE offset = 0;
  CodePtr code(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                             options | PCRE2_UTF | PCRE2_USE_OFFSET_LIMIT, &error, &offset, context.get()));
  if (!code && error == PCRE2_ERROR_HEAP_FAILED) throw std::bad_alloc();
  if (!code) {
    throw Error(ErrorCode::kBadTokenizer,
                where + " is not a valid regular expression: " + message_of(error) + ".");
  }
  pcre2_jit_compile(code.get(),
                    PCRE2_JIT_COMPLETE);  // where it fails, the interpreter gives the same matches
  return code;
}

}  // namespace

struct Regex::Code {
  CodePtr code;
  bool literal;
};

Regex Regex::from_pattern(std::string_view pattern, const std::string& where) {
  const std::string translated = translate_pattern(pattern, where);
  // Oniguruma's ^ and $ always stand at lines, and its \p classes always mean Unicode.
  CodePtr code = compile(translated, PCRE2_UCP | PCRE2_MULTILINE, where);
  return Regex(std::make_shared<const Code>(Code{std::move(code), false}));
}

Regex Regex::from_literal(std::string_view text, const std::string& where) {
  return Regex(std::make_shared<const Code>(Code{compile(text, PCRE2_LITERAL, where), true}));
}

void Regex::for_each_match(std::string_view text, Watch& watch,
                           const std::function<void(Match)>& visit) const {
  std::string storage;
  const std::string_view subject = code_->literal ? text : with_stand_ins(text, storage, watch);

  MatchDataPtr data(pcre2_match_data_create(1, nullptr));  // the whole match only; groups are not asked for
  MatchContextPtr context(pcre2_match_context_create(nullptr));
  if (!data || !context) throw std::bad_alloc();
  const auto most_steps =
      static_cast<uint32_t>(std::min<uint64_t>(kMostSteps + 4 * uint64_t{subject.size()}, UINT32_MAX));
  const size_t place_work = Watch::kLookup + subject.size() / kPassedFast;
  pcre2_set_heap_limit(context.get(), kMatchHeapKib);
  JitStackPtr stack;  // made when PCRE2 first runs out of its own 32 KiB

  const auto* bytes = reinterpret_cast<PCRE2_SPTR>(subject.data());
  size_t from = 0, last_end = std::string_view::npos;
  uint32_t steps = kFewSteps;
  while (from <= subject.size()) {
    const size_t searched = steps > kFewSteps ? 0 : kSearched;
    const size_t last_begin = from + std::min(subject.size() - from, searched);
    pcre2_set_offset_limit(context.get(), last_begin);
    pcre2_set_match_limit(context.get(), steps);
    int status = pcre2_match(code_->code.get(), bytes, subject.size(), from, PCRE2_NO_UTF_CHECK, data.get(),
                             context.get());
    if (status == PCRE2_ERROR_JIT_STACKLIMIT && !stack) {
      stack.reset(pcre2_jit_stack_create(kJitStackStart, kJitStackMax, nullptr));
      if (!stack) throw std::bad_alloc();
      pcre2_jit_stack_assign(context.get(), nullptr, stack.get());
      continue;
    }
    if (status == PCRE2_ERROR_JIT_STACKLIMIT) {
      status = pcre2_match(code_->code.get(), bytes, subject.size(), from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                           data.get(), context.get());
    }
    const size_t places = last_begin - from + 1;
    watch.did((status < 0 ? places : 1) * place_work);
    const bool is_hard = status == PCRE2_ERROR_MATCHLIMIT || steps > kFewSteps;
    const bool is_allowed = !is_hard || watch.take_steps(uint64_t{places} * steps);
    if (status == PCRE2_ERROR_MATCHLIMIT && is_allowed && steps < most_steps) {
      steps = static_cast<uint32_t>(std::min<uint64_t>(uint64_t{steps} * kMoreSteps, most_steps));
      continue;
    }
    steps = kFewSteps;
    if (status == PCRE2_ERROR_NOMATCH) {
      if (last_begin == subject.size()) return;
      from = last_begin + 1;
      while (from < subject.size() && (subject[from] & 0xC0) == 0x80) ++from;  // to the next character
      continue;
    }
    if (status == PCRE2_ERROR_NOMEMORY) throw std::bad_alloc();
    if (status < 0) {
      throw Error(ErrorCode::kUnsupported, "The tokenizer's regular expression cannot split this text of " +
                                               std::to_string(text.size()) + " bytes: " + message_of(status) +
                                               ".");
    }
    const PCRE2_SIZE* span = pcre2_get_ovector_pointer(data.get());
    const Match match{span[0], span[1]};
    // An empty match right where the last match ended does not count (as in the Rust binding of Oniguruma).
    if (match.begin >= match.end && match.end == last_end) {
      if (from >= subject.size()) return;
      from += utf8_step(subject, from).length;
      continue;
    }
    from = last_end = match.end;
    visit(match);
  }
}

}  // namespace allmem
