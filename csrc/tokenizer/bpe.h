// Byte-pair merges: a piece of text ▶ ids.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "tokenizer/config.h"
#include "tokenizer/watch.h"

namespace allmem {

class Bpe {
 public:
  explicit Bpe(const TokenizerConfig& config);

  // Room that encode() reuses from piece to piece.
  struct Scratch {
    struct Symbol {
      int32_t id, previous, next;  // next == -1: the last; id == -1: merged into its left neighbour
    };
    struct Candidate {
      uint32_t rank;
      int32_t position, result;
    };
    std::vector<Symbol> symbols;
    std::vector<Candidate> queue;
  };

  // Appends the ids of `piece`, at most 2^31 - 1 bytes, in O(n log n).
  void encode(std::string_view piece, Scratch& scratch, Watch& watch, std::vector<int32_t>& out) const;

 private:
  struct Rule {
    uint32_t rank;
    int32_t result;
  };
  static uint64_t key_of(int32_t left, int32_t right) {
    return (static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32) | static_cast<uint32_t>(right);
  }
  const Rule* rule_of(int32_t left, int32_t right) const;
  void start(std::string_view piece, Scratch& scratch, Watch& watch) const;
  void push_candidate(Scratch& scratch, int32_t position) const;
  void merge(Scratch& scratch, int32_t position) const;

  std::array<int32_t, 256> id_of_byte_;
  std::unordered_map<uint64_t, Rule> rules_;
  std::unordered_map<std::string, int32_t> whole_pieces_;  // only with ignore_merges
  int32_t unk_id_ = -1;
  bool fuse_unk_ = false;
};

}  // namespace allmem
