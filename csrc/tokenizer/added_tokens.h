// Finds added tokens (special or not) in text, as Hugging Face `tokenizers` does.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "tokenizer/config.h"
#include "tokenizer/watch.h"

namespace allmem {

// Bytes of a text in which special tokens are plain text. Lists of them are in order and do not touch.
struct PlainRange {
  size_t begin, end;
};

class AddedTokens {
 public:
  // The members of `all` whose `normalized` flag is `normalized`; their contents normalised by `forms` if it
  // is true.
  AddedTokens(std::span<const AddedToken> all, bool normalized, std::span<const NormalForm> forms);

  // Cuts valid UTF-8 into plain pieces, visit(piece, -1), and added tokens, visit(content, id), in order.
  // Strings of special tokens of which a part lies in `plain` stay in the plain pieces.
  void split(std::string_view text, std::span<const PlainRange> plain, Watch& watch,
             const std::function<void(std::string_view, int32_t)>& visit) const;

 private:
  struct Found {
    size_t begin, end;
    const AddedToken* token;
  };
  void insert(std::string_view content, size_t index);
  bool find(std::string_view text, size_t from, std::span<const PlainRange> plain, Watch& watch,
            Found& out) const;

  std::vector<AddedToken> tokens_;
  // A trie over bytes: nodes_[parent * 256 + byte] is the child, accept_[node] the index into tokens_ or -1.
  std::unordered_map<uint64_t, uint32_t> edges_;
  std::vector<int64_t> accept_;
  std::vector<bool> first_byte_;
};

// Whether Rust's \w matches: letters, marks, decimal digits, connectors and joiners.
bool is_word_character(std::string_view character);

}  // namespace allmem
