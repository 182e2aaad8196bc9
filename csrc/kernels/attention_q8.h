// Window attention whose keys and values are kept in 8 bits: a quarter of the memory and, as one token is
// bound by reading it, of the time.
//
// Composed of kernels of the table, so that there is one for all instruction sets: a tile of keys is an 8-bit
// weight matrix for the queries, and a tile of values is dequantised once for all queries that see it.
#pragma once

#include "kernels/kernels.h"

namespace allmem {

// The ring of one layer. A token at position p < S lives in slot p, a later one in slot S + (p - S) mod
// `length`. The length exceeds the window by a block, so that a block is stored before it is attended to, and
// meets its own keys as every later token will: rounded. A row has D channels, filled up to whole groups.
struct KvRing {
  size_t kv_heads, dim, window, sinks;
  size_t length;

  size_t stride() const { return (dim + kQ8Group - 1) / kQ8Group * kQ8Group; }
  size_t slots() const { return sinks + length; }
  size_t slot(uint64_t position) const {
    return static_cast<size_t>(position < sinks ? position : sinks + (position - sinks) % length);
  }
  // Bytes of the keys (and of the values): codes [Hkv, slots, stride], then scales [Hkv, slots,
  // stride/kQ8Group].
  size_t bytes() const { return kv_heads * slots() * (stride() + stride() / kQ8Group * sizeof(float)); }
  const uint8_t* codes(const std::byte* rows, size_t kv, size_t slot) const {
    return reinterpret_cast<const uint8_t*>(rows) + (kv * slots() + slot) * stride();
  }
  const float* scales(const std::byte* rows, size_t kv, size_t slot) const {
    const std::byte* all = rows + kv_heads * slots() * stride();
    return reinterpret_cast<const float*>(all) + (kv * slots() + slot) * (stride() / kQ8Group);
  }
};

struct AttentionQ8Args {
  KvRing ring;
  size_t tokens, heads;   // T, H
  uint64_t position;      // tokens seen before this call
  const float* q;         // [T, H, D], rotated at the token's position
  const float* q_sink;    // [T, H, D], rotated at min(position, S + W - 1)
  const std::byte* keys;  // the ring's keys and values, this call's among them
  const std::byte* values;
  float scale;  // 1/sqrt(D)
  float* y;     // [T, H, D]
};

// Puts the rows [T, Hkv, D] of the KV heads [kv_begin, kv_end) into the ring. scratch: store_kv_scratch()
// floats.
size_t store_kv_scratch(const KvRing& ring);
void store_kv(const Kernels& kernels, const KvRing& ring, const float* rows, size_t T, uint64_t position,
              std::byte* to, size_t kv_begin, size_t kv_end, float* scratch);

// As Kernels::attention: scratch holds attention_q8_scratch(args) floats, which never shrinks as T grows.
size_t attention_q8_scratch(const AttentionQ8Args& args);
void attention_q8(const Kernels& kernels, const AttentionQ8Args& args, size_t kv_begin, size_t kv_end,
                  float* scratch);

}  // namespace allmem
