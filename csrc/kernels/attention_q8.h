// Window attention whose keys and values are kept in 8 bits: a quarter of the memory and, as one token is
// bound by reading it, of the time.
//
// Composed of kernels of the table, so that there is one for all instruction sets. A tile of keys is an 8-bit
// weight matrix for the queries, and a tile of values, which lies transposed, one for the softmax's weights.
#pragma once

#include "kernels/kernels.h"

namespace allmem {

// The ring of one layer, in tiles of kKeyTile slots. A token at position p < S lives in slot p, a later one
// in the slots after the sinks' tiles, (p - S) mod `length`. The length exceeds the window by a block, so
// that a block is stored before it is attended to, and meets its own keys as every later token will: rounded.
//
// Keys: codes [Hkv, slots, stride], a row's channels filled up to whole groups; then scales [Hkv, slots,
// stride/kQ8Group]. Values: codes [Hkv, tiles, D, kKeyTile]; then scales [Hkv, slots], one for a token's row.
// x = (code - 128) scale.
// A file's sizes may make them more bytes than there are addresses.
struct KvRing {
  size_t kv_heads, dim, window, sinks;
  size_t block;  // tokens of a call at most

  static constexpr size_t whole(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }
  size_t stride() const { return whole(dim, kQ8Group); }
  size_t sink_slots() const { return whole(sinks, kKeyTile); }
  size_t length() const { return whole(window + block, kKeyTile); }
  size_t slots() const { return sink_slots() + length(); }
  size_t slot(uint64_t position) const {
    return static_cast<size_t>(position < sinks ? position : sink_slots() + (position - sinks) % length());
  }
  size_t key_slot_bytes() const { return stride() + stride() / kQ8Group * sizeof(float); }
  size_t value_slot_bytes() const { return dim + sizeof(float); }
  size_t slot_bytes() const { return key_slot_bytes() + value_slot_bytes(); }
  uint64_t key_bytes() const { return uint64_t{kv_heads} * slots() * key_slot_bytes(); }
  uint64_t value_bytes() const { return uint64_t{kv_heads} * slots() * value_slot_bytes(); }
};

// The two halves of a ring in memory.
struct KvBytes {
  std::byte* keys;    // KvRing::key_bytes()
  std::byte* values;  // KvRing::value_bytes()
};

struct AttentionQ8Args {
  KvRing ring;
  KvBytes bytes;         // this call's keys and values among them
  size_t tokens, heads;  // T <= block, H
  uint64_t position;     // tokens seen before this call
  const float* q;        // [T, H, D], rotated at the token's position
  const float* q_sink;   // [T, H, D], rotated at min(position, S + W - 1)
  float scale;           // 1/sqrt(D)
  float* y;              // [T, H, D]
};

// Puts the keys k and values v [T, Hkv, D] of the KV heads [kv_begin, kv_end) into the ring. scratch: as
// below.
void store_kv(const Kernels& kernels, const KvRing& ring, const float* k, const float* v, size_t T,
              uint64_t position, const KvBytes& to, size_t kv_begin, size_t kv_end, float* scratch);

// What one KV head's slot of the token at `position` holds, to KvRing::slot_bytes() elsewhere; and back.
void copy_slot(const KvRing& ring, const KvBytes& from, size_t kv, uint64_t position, std::byte* to);
void restore_slot(const KvRing& ring, const KvBytes& to, size_t kv, uint64_t position, const std::byte* from);

// As Kernels::attention. store_kv() and this need attention_q8_scratch() floats, which grow with T.
size_t attention_q8_scratch(const KvRing& ring, size_t heads, size_t T);
void attention_q8(const Kernels& kernels, const AttentionQ8Args& args, size_t kv_begin, size_t kv_end,
                  float* scratch);

}  // namespace allmem
