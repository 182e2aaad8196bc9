// Merging with a priority queue, in the order of Hugging Face `tokenizers`.
#include "tokenizer/bpe.h"

#include <algorithm>

#include "tokenizer/unicode.h"

namespace allmem {
namespace {

// Makes a heap's front the lowest rank, and the leftmost place among equals.
bool later(const Bpe::Scratch::Candidate& a, const Bpe::Scratch::Candidate& b) {
  return a.rank != b.rank ? a.rank > b.rank : a.position > b.position;
}

}  // namespace

Bpe::Bpe(const TokenizerConfig& config) : unk_id_(config.unk_id.value_or(-1)), fuse_unk_(config.fuse_unk) {
  id_of_byte_.fill(-1);
  if (config.ignore_merges) whole_pieces_.reserve(config.vocab.size());
  for (size_t id = 0; id < config.vocab.size(); ++id) {
    // A token with other characters than the alphabet's can never be made of bytes.
    auto bytes = bytes_of_byte_level(config.vocab[id]);
    if (!bytes || bytes->empty()) continue;
    if (bytes->size() == 1) id_of_byte_[static_cast<uint8_t>(bytes->front())] = static_cast<int32_t>(id);
    if (config.ignore_merges) whole_pieces_.emplace(std::move(*bytes), static_cast<int32_t>(id));
  }
  rules_.reserve(config.merges.size());
  for (size_t rank = 0; rank < config.merges.size(); ++rank) {
    const Merge& merge = config.merges[rank];
    rules_[key_of(merge.left, merge.right)] = {static_cast<uint32_t>(rank), merge.result};
  }
}

const Bpe::Rule* Bpe::rule_of(int32_t left, int32_t right) const {
  const auto found = rules_.find(key_of(left, right));
  return found == rules_.end() ? nullptr : &found->second;
}

// One symbol for each byte; a byte without a token gives unk_id or, without that, nothing.
void Bpe::start(std::string_view piece, Scratch& scratch, Watch& watch) const {
  auto& symbols = scratch.symbols;
  symbols.clear();
  symbols.reserve(piece.size());  // of a long piece: no copies that take their time
  bool after_unknown = false;
  for (const char c : piece) {
    watch.did(sizeof(Scratch::Symbol));
    const int32_t known = id_of_byte_[static_cast<uint8_t>(c)];
    const bool unknown = known < 0;
    const bool fused = unknown && after_unknown && fuse_unk_;
    after_unknown = unknown;
    if (fused || (unknown && unk_id_ < 0)) continue;
    const auto position = static_cast<int32_t>(symbols.size());
    symbols.push_back({unknown ? unk_id_ : known, position - 1, position + 1});
  }
  if (!symbols.empty()) symbols.back().next = -1;
}

void Bpe::push_candidate(Scratch& scratch, int32_t position) const {
  const auto& left = scratch.symbols[static_cast<size_t>(position)];
  if (left.next < 0) return;
  const Rule* rule = rule_of(left.id, scratch.symbols[static_cast<size_t>(left.next)].id);
  if (rule == nullptr) return;
  scratch.queue.push_back({rule->rank, position, rule->result});
  std::push_heap(scratch.queue.begin(), scratch.queue.end(), later);
}

// Joins the symbol at `position` with its right neighbour and queues the two pairs that this makes.
void Bpe::merge(Scratch& scratch, int32_t position) const {
  auto& left = scratch.symbols[static_cast<size_t>(position)];
  auto& right = scratch.symbols[static_cast<size_t>(left.next)];
  right.id = -1;
  left.next = right.next;
  if (left.next >= 0) scratch.symbols[static_cast<size_t>(left.next)].previous = position;
  if (left.previous >= 0) push_candidate(scratch, left.previous);
  push_candidate(scratch, position);
}

void Bpe::encode(std::string_view piece, Scratch& scratch, Watch& watch, std::vector<int32_t>& out) const {
  if (!whole_pieces_.empty()) {
    const auto whole = whole_pieces_.find(std::string(piece));
    if (whole != whole_pieces_.end()) return out.push_back(whole->second);
  }
  start(piece, scratch, watch);
  scratch.queue.clear();
  scratch.queue.reserve(scratch.symbols.size());
  for (size_t i = 0; i < scratch.symbols.size(); ++i) {
    watch.did(Watch::kLookup);
    push_candidate(scratch, static_cast<int32_t>(i));
  }
  while (!scratch.queue.empty()) {
    watch.did(Watch::kLookup);
    std::pop_heap(scratch.queue.begin(), scratch.queue.end(), later);
    const Scratch::Candidate top = scratch.queue.back();
    scratch.queue.pop_back();
    // A candidate is stale if a merge has since changed its pair, unless the new pair merges to the same
    // token.
    auto& left = scratch.symbols[static_cast<size_t>(top.position)];
    if (left.id < 0 || left.next < 0) continue;
    const Rule* rule = rule_of(left.id, scratch.symbols[static_cast<size_t>(left.next)].id);
    if (rule == nullptr || rule->result != top.result) continue;
    left.id = top.result;
    merge(scratch, top.position);
  }
  for (const Scratch::Symbol& symbol : scratch.symbols) {
    watch.did(sizeof symbol);
    if (symbol.id >= 0) out.push_back(symbol.id);
  }
}

}  // namespace allmem
