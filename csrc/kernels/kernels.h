// The table of compute kernels: one per instruction set, chosen once at start-up.
//
// ref/ holds the scalar version of each, which is its definition; every other version is tested against it.
// All matrices are row-major float32 unless a comment says otherwise. Kernels allocate nothing, keep no
// state, trust their arguments (ops/ has checked every size) and work on a caller-chosen slice, so that the
// caller decides how work is spread over threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "platform/cpu_features.h"

namespace allmem {

// A weight matrix [rows, cols] in com.microsoft::MatMulNBits form, viewed where it is mapped.
struct NBitsMatrix {
  const uint8_t* packed;  // [rows, cols/block, block*bits/8]; 4 bits: element 2i in the low nibble of byte i
  const float* scales;    // [rows, cols/block]; null when they are float16
  const uint8_t* zero_points;  // null: 2^(bits-1); else [rows, ceil(cols/block*bits/8)], packed likewise
  size_t rows, cols;           // cols is a multiple of block
  size_t block;                // 16, 32, 64, 128 or 256
  unsigned bits;               // 4 or 8
  const uint16_t* half_scales = nullptr;  // the scales as IEEE binary16, when they are that
  const uint16_t* half_zeros = nullptr;   // [rows, cols/block], binary16: zero points that are no codes
};
// Of the columns of an affine matrix: one whose half_zeros are set, with half_scales and codes of 4 bits.
inline constexpr size_t kAffineBlock = 32;

// Rows of activations quantised to 8 bits, in groups of kQ8Group columns with a scale each: x ≈ code * scale.
// Integer products need fewer instructions than float ones, and their sums are exact. The codes of a group
// lie as the weights' codes do once unpacked: for 4-bit weights the even columns, then the odd ones.
inline constexpr size_t kQ8Group = 64;
// A group whose largest is not above it is 0: 127 / max would overflow.
inline constexpr float kQ8Tiny = 0x1p-100f;
struct Q8Rows {
  int8_t* codes;  // [T, K]           round(x * 127 / max |x| of the group)
  float* scales;  // [T, K/kQ8Group]  max |x| / 127
  int32_t* sums;  // [T, K/kQ8Group]  -2^(bits-1) Σ codes: takes the weights' zero point out of the products
};

// What the accumulators of a product start from: a bias [N], or 0 if it is null; or, with `beta` [T],
// whatever the bias, what y is before, y[t, n] beta[t].
struct Init {
  const float* bias = nullptr;
  const float* beta = nullptr;

  // Always inlined: no copy of them may have a file's special instructions in it.
  [[gnu::always_inline]] Init from_token(size_t t) const {
    return {bias, beta == nullptr ? nullptr : beta + t};
  }
  // What y[t, n], which is `y`, starts from. Without `beta` y is not read.
  [[gnu::always_inline]] float start(size_t t, size_t n, const float& y) const {
    if (beta != nullptr) return y * beta[t];
    return bias == nullptr ? 0.0f : bias[n];
  }
};

// One call of window attention, for a slice of the KV heads. H query heads, Hkv KV heads, D channels, group =
// H/Hkv. Keys arrive and are stored already rotated (RoPE). A token at position p < S lives in slot p of the
// ring, a later one in slot S + (p - S) mod W.
struct AttentionArgs {
  size_t tokens;                // T
  size_t heads, kv_heads, dim;  // H, Hkv, D
  size_t window, sinks;         // W, S
  uint64_t position;            // tokens seen before this call
  const float* q;               // [T, H, D], rotated at the token's position
  const float* q_sink;          // [T, H, D], rotated at min(position, S + W - 1); meets the sink keys
  const float* k;               // [T, Hkv, D], this call's keys, rotated
  const float* v;               // [T, Hkv, D]
  const float* k_ring;          // [Hkv, S + W, D], as it was before this call
  const float* v_ring;          // [Hkv, S + W, D]
  float scale;                  // 1/sqrt(D)
  float* y;                     // [T, H, D]
};

// What attention with 8-bit keys and values is made of (attention_q8.h): steps of this many keys.
inline constexpr size_t kKeyTile = 64;
// The keys [begin, end) of a tile, those that a query sees; none if begin >= end.
struct SeenKeys {
  uint16_t begin, end;
};

// The fast weights of one KV head (docs/model.md): W_g, W_u [h, D], W_d [D, h], and the rows' rescaling
// factors r = ||row of W_0|| / ||row of W||, so that the normalised Ŵ = r ⊙ W is never stored.
struct MemoryHead {
  size_t dim, hidden;  // D, h
  float *w_gate, *w_up, *w_down;
  float *s_gate, *s_up, *s_down;  // momentum S, shaped like W
  float *g_gate, *g_up, *g_down;  // gradient accumulated over the chunk so far, shaped like W
  float *r_gate, *r_up, *r_down;  // [h], [h], [D]
};

// What steers the memory (η, β: a row for each KV head) stays float32 where the rest is quantised, and must
// not depend on how a stream is split into calls.
inline constexpr size_t kOrderedRows = 128;

// --- What each kernel computes

// y[t, n] = Σ_k x[t, k] w[n, k] (+ bias[n] unless null), n in [n_begin, n_end).   x [T, K], w [N, K], y [T,
// N]. Up to kOrderedRows rows of w, a sum is taken in the same order for every T.
using LinearF32 = void(const float* x, const float* w, const float* bias, float* y, size_t T, size_t K,
                       size_t N, size_t n_begin, size_t n_end);
// The same with quantised weights, dequantised on the fly: (code - zero_point) * scale.   x [T, w.cols], y
// [T, w.rows]
using LinearNBits = void(const float* x, const NBitsMatrix& w, const float* bias, float* y, size_t T,
                         size_t n_begin, size_t n_end);

// The same with activations quantised to 8 bits as well, for weights without zero points whose `block` is a
// multiple of kQ8Group (so K is, too). Quantise fills q from x [T, K] for weights of `bits`; a group that
// holds a NaN or an infinity gives NaN.
//
// Both give the same bits in every table and for every T, so that neither the instruction set nor the split
// of a stream into calls changes a result: the integer products of a group are summed up first, and then
// y = fma(sum, scale of w * scale of x, y) in float32, group after group, from what it is added to on (the
// bias, or y beta rounded to float32).
using Quantise = void(const float* x, size_t T, size_t K, unsigned bits, const Q8Rows& q);
using LinearQ8 = void(const Q8Rows& x, const NBitsMatrix& w, const Init& init, float* y, size_t T,
                      size_t n_begin, size_t n_end);

// The same with an affine matrix, in blocks of kAffineBlock, for rows quantised for 4 bits; x.sums: as
// affine_sums() makes them. Block after block from the bias on (0 if it is null), with the block's integer
// products: y = fma(products - zero point * sum, scale of w * scale of x, y). The zero point has 11 bits and
// the sum 13, so that their product is exact and the subtraction rounds once, however it is computed.
using LinearAffine = void(const Q8Rows& x, const NBitsMatrix& w, const float* bias, float* y, size_t T,
                          size_t n_begin, size_t n_end);

// x[i] = base[i] + codes[i] scales[i / kQ8Group], rounded once; base: null for zeros. What Quantise made of
// rows for weights of 8 bits, as floats again, and the same bits in every table, too.   codes: of whole
// groups
using Dequantise = void(const int8_t* codes, const float* scales, const float* base, float* x, size_t n);

// y[r, :] = x[r, :] / sqrt(mean(x[r, :]²) + epsilon) ⊙ weight[:].   x, y [rows, cols]; y may be x
using RmsNorm = void(const float* x, const float* weight, float* y, size_t rows, size_t cols, float epsilon);

// Elementwise over n contiguous values; y may be an input.
using Unary = void(const float* x, float* y, size_t n);
using Binary = void(const float* a, const float* b, float* y, size_t n);

// Rotary embedding, the "half" layout of Qwen and Llama: for i < D/2, (x[i], x[i + D/2]) is rotated by the
// angle whose cosine and sine are cos[t, i], sin[t, i].   x, y [T, heads, D]; cos, sin [T, D/2]; y may be x
using Rotate = void(const float* x, const float* cos, const float* sin, float* y, size_t T, size_t heads,
                    size_t D);

// Softmax attention of every token over the sinks and its window, for KV heads in [kv_begin, kv_end).
// Reads ring and this call's keys, does not write the ring. `scratch` holds AttentionScratch floats, a size
// that depends on the shapes alone, never on the position, and never shrinks as T grows.
using AttentionScratch = size_t(const AttentionArgs& args);
using Attention = void(const AttentionArgs& args, size_t kv_begin, size_t kv_end, float* scratch);

// One step of an online softmax over kKeyTile keys for each of `rows` queries, scores [rows, kKeyTile]. The
// keys that a query sees get the weights e^(score - max), the others 0. Brings max and total = Σ weights,
// which are those of the steps before (-inf and 0 at first), up to date, replaces each score by its weight
// times the scale of its value, and sets shrink = e^(max before - max), by which the caller multiplies
// what it has summed so far (1 where max stays). seen, max, total, shrink: [rows].
using SoftmaxStep = void(float* scores, const float* scales, const SeenKeys* seen, size_t rows, float* max,
                         float* total, float* shrink);

// r = norm0 / ||row of W|| (0 where ||row|| is 0), for the three matrices of a head.
using MemoryRowScales = void(const MemoryHead& head, const float* norm0_gate, const float* norm0_up,
                             const float* norm0_down);
// y[t] = M_W(q[t]) = q + W_d (silu(W_g q) ⊙ (W_u q)), for `n` vectors of D floats at the given strides (in
// floats). scratch: MemoryScratch floats, as for MemoryAccumulate.
using MemoryScratch = size_t(size_t dim, size_t hidden);
using MemoryRead = void(const MemoryHead& head, const float* q, size_t q_stride, float* y, size_t y_stride,
                        size_t n, float* scratch);
// G += Σ_t η_t ∇_W ½||M_Ŵ(k_t) - v_t||²; eta[t * eta_stride].
using MemoryAccumulate = void(const MemoryHead& head, const float* k, size_t k_stride, const float* v,
                              size_t v_stride, const float* eta, size_t eta_stride, size_t n, float* scratch);
// The end of a chunk: S = beta_mean S + G;  W = r ⊙ W - S;  G = 0. Element by element: S may be G itself.
using MemoryWrite = void(const MemoryHead& head, float beta_mean);

// What a token writes into the linear memory of one KV head, S [dim, dim] with a row for each channel of v:
// S = beta S + eta (v - beta S k) kᵀ; without `delta` S = beta S + eta v kᵀ.   scratch: dim floats
using LinearMemoryWrite = void(float* state, const float* k, const float* v, float eta, float beta,
                               bool delta, size_t dim, float* scratch);

// sums [T, K/kAffineBlock] = Σ codes of a block, of rows quantised for 4 bits: what LinearAffine reads.
void affine_sums(const int8_t* codes, size_t T, size_t K, int32_t* sums);

// --- The table

struct Kernels {
  const char* name;   // "ref", "avx2", ...: the value that ALLMEM_ISA takes
  CpuFeatures needs;  // what the machine must have

  LinearF32* linear_f32;
  LinearNBits* linear_nbits;
  Quantise* quantise;
  LinearQ8* linear_q8;
  LinearAffine* linear_affine;
  Dequantise* dequantise;

  RmsNorm* rms_norm;
  Binary *add, *mul;
  Unary *sigmoid, *silu, *softplus;  // silu(x) = x sigmoid(x)
  Binary* silu_mul;                  // silu(gate) ⊙ up, fused SwiGLU
  Rotate* rotate;

  AttentionScratch* attention_scratch;
  Attention* attention;
  SoftmaxStep* softmax_step;

  MemoryRowScales* memory_row_scales;
  MemoryScratch* memory_scratch;
  MemoryRead* memory_read;
  MemoryAccumulate* memory_accumulate;
  MemoryAccumulate* memory_accumulate_fast;  // its products may be exact to 2^-16 only
  MemoryWrite* memory_write;

  LinearMemoryWrite* linear_memory_write;
};

// The scalar definition.
const Kernels& ref_kernels();

// Every table that was compiled, best first, `ref` last; and those of them that this machine can run.
std::span<const Kernels* const> compiled_kernels();
std::span<const Kernels* const> available_kernels();

// The table to use: the best one, or the one ALLMEM_ISA names. Throws allmem::Error (kInvalidArgument) when
// ALLMEM_ISA names one this machine cannot run.
const Kernels& best_kernels();

}  // namespace allmem
