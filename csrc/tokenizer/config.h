// What a tokenizer.json says, checked and as plain data; and its reader.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace allmem {

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };

struct SplitStep {
  enum class Behavior { kIsolated, kRemoved, kMergedWithPrevious, kMergedWithNext, kContiguous };
  std::string pattern;
  bool is_regex = true;
  Behavior behavior = Behavior::kIsolated;
  bool invert = false;  // what the pattern does not match is the delimiter
};

struct Merge {
  int32_t left, right, result;  // ids
};

struct AddedToken {
  std::string content;
  int32_t id = 0;
  bool special = false;
  bool single_word = false;  // not beside a word character
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // takes the white space after it
  bool normalized = false;   // is looked for, normalised, in normalised text
};

struct TokenizerConfig {
  std::vector<NormalForm> normal_forms;
  std::vector<SplitStep> splits;  // before ByteLevel, in order
  bool add_prefix_space = false;  // ByteLevel: every piece begins with a space
  bool use_gpt2_pattern = false;  // ByteLevel: then splits each piece by GPT-2's pattern
  std::vector<std::string>
      vocab;                  // the model's token of each id as the file spells it; empty where it has none
  std::vector<Merge> merges;  // in order of rank
  std::optional<int32_t> unk_id;         // for bytes that have no token; without it they are dropped
  bool fuse_unk = false;                 // one unk_id for a run of such bytes
  bool ignore_merges = false;            // a piece that is a token is that token, whatever the merges say
  std::vector<AddedToken> added_tokens;  // in the file's order
  int32_t vocab_size = 0;                // one more than the largest id
  std::vector<int32_t> prefix;           // what the post-processor puts in front of a text
};

// `name` is the file's name for sentences. Throws Error: kBadTokenizer, or kUnsupported for a component that
// is well-formed but not part of byte-level BPE. Both name the file and the field.
TokenizerConfig read_tokenizer_json(std::string_view json, const std::string& name);

}  // namespace allmem
