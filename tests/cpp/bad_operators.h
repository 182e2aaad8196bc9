// Operators with wrong inputs, shapes, types or attributes.
#pragma once

#include "bad_model_parts.h"
#include "linear_model.h"

namespace allmem::test {

inline void BadModels::add_operators() {
  const std::vector<Attr> t{Attr::i("transB", 1)};

  // --- operators, shapes and types ---
  logits(
      "unknown operator", [](auto& b) { b.node("Frobnicate", {"h"}, {"logits"}, {}, "", "odd one"); },
      kUnsupported, "odd one");
  logits(
      "unknown domain",
      [](auto& b) {
        b.node("Add", {"h", "h"}, {"logits"}, {}, "acme");
      },
      kUnsupported, "acme::Add");
  logits(
      "function of the file",
      [](auto& b) { b.function("acme", "F").node("F", {"h"}, {"logits"}, {}, "acme"); }, kUnsupported,
      "onnxruntime");
  logits(
      "unknown attribute", [](auto& b) { b.node("Neg", {"h"}, {"logits"}, {Attr::i("extra", 1)}); },
      kUnsupported, "extra");
  logits(
      "attribute of a wrong type",
      [](auto& b) { b.node("Softmax", {"h"}, {"logits"}, {Attr::f("axis", 1)}); }, kBad, "axis");
  logits(
      "too few inputs", [](auto& b) { b.node("Add", {"h"}, {"logits"}); }, kBad, "inputs");
  logits(
      "absent input",
      [](auto& b) {
        b.node("Add", {"h", ""}, {"logits"});
      },
      kBad, "lacks");
  logits(
      "shapes that do not broadcast",
      [](auto& b) {
        b.floats("w", {3}, {1, 2, 3}).node("Add", {"h", "w"}, {"logits"});
      },
      kBad, "broadcast");
  logits(
      "wrong dtype", [](auto& b) { b.node("Neg", {"input_ids"}, {"logits"}); }, kBad, "int64");
  logits(
      "wrong rank",
      [&](auto& b) {
        b.floats("w", {4}, {1, 2, 3, 4}).node("Gemm", {"h", "w"}, {"logits"}, t);
      },
      kBad, "matrix");
  logits(
      "wrong inner size",
      [&](auto& b) {
        b.floats("w", {4, 3}, std::vector<float>(12)).node("Gemm", {"h", "w"}, {"logits"}, t);
      },
      kBad, "rows of 3");
  logits(
      "Gemm with alpha",
      [](auto& b) {
        b.floats("w", {4, 4}, std::vector<float>(16))
            .node("Gemm", {"h", "w"}, {"logits"}, {Attr::i("transB", 1), Attr::f("alpha", 2)});
      },
      kUnsupported, "alpha");
  logits(
      "tokens in two dimensions",
      [](auto& b) {
        b.node("Transpose", {"h"}, {"ht"}, {Attr::ints("perm", {1, 0})})
            .node("MatMul", {"h", "ht"}, {"tt"})
            .node("Neg", {"h"}, {"logits"});
      },
      kUnsupported, "two dimensions");
  logits(
      "reshape that moves tokens",
      [](auto& b) {
        b.ints("s", {-1, 8}).node("Reshape", {"h", "s"}, {"logits"});
      },
      kBad, "shape");
  logits(
      "reshape with two open dimensions",
      [](auto& b) {
        b.ints("s", {-1, -1}).node("Reshape", {"h", "s"}, {"logits"});
      },
      kBad, "two dimensions of -1");
  logits(
      "reshape to a computed shape",
      [](auto& b) {
        b.node("Reshape", {"h", "input_ids"}, {"logits"});
      },
      kUnsupported, "constant");
  logits(
      "reshape to a huge shape",
      [](auto& b) {
        b.ints("s", {1 << 28, 1 << 28, 1 << 28, -1}).node("Reshape", {"h", "s"}, {"logits"});
      },
      kBad, "shape");
  logits(
      "axis beyond the rank", [](auto& b) { b.node("Softmax", {"h"}, {"logits"}, {Attr::i("axis", 7)}); },
      kBad, "axis 7");
  logits(
      "perm that is none",
      [](auto& b) {
        b.node("Transpose", {"h"}, {"logits"}, {Attr::ints("perm", {0, 0})});
      },
      kBad, "perm");
  logits(
      "split that does not add up",
      [](auto& b) {
        b.ints("s", {1, 1}).node("Split", {"h", "s"}, {"a", "logits"}, {Attr::i("axis", 1)});
      },
      kBad, "add up");
  logits(
      "constants that would fill memory",
      [](auto& b) {
        b.floats("c", {12000, 1}, std::vector<float>(12000))
            .floats("r", {1, 12000}, std::vector<float>(12000))
            .node("Add", {"c", "r"}, {"x"})
            .node("Neg", {"h"}, {"logits"});
      },
      kUnsupported, "256 MiB");
  logits(
      "quantised rows not divisible by the block",
      [](auto& b) {
        b.bytes("w", {4, 1, 8}, std::vector<uint8_t>(32))
            .floats("s", {4}, std::vector<float>(4))
            .node("MatMulNBits", {"h", "w", "s"}, {"logits"},
                  {Attr::i("K", 4), Attr::i("N", 4), Attr::i("block_size", 16)}, "com.microsoft");
      },
      kUnsupported, "blocks");
  logits(
      "quantised without K",
      [](auto& b) {
        b.bytes("w", {4, 1, 8}, std::vector<uint8_t>(32))
            .node("MatMulNBits", {"h", "w", "table"}, {"logits"}, {}, "com.microsoft");
      },
      kBad, "'K'");
  logits(
      "an equation that is no product of heads",
      [](auto& b) {
        b.floats("w", {4, 4}, std::vector<float>(16))
            .node("Einsum", {"h", "w"}, {"logits"}, {Attr::s("equation", "tk,nk->tn")});
      },
      kUnsupported, "thk,hnk->thn");
  logits(
      "matrices of other heads",
      [](auto& b) {
        b.ints("s", {-1, 2, 2}).ints("j", {-1, 4}).node("Reshape", {"h", "s"}, {"hh"});
        b.floats("w", {4, 2, 2}, std::vector<float>(16))
            .node("Einsum", {"hh", "w"}, {"y"}, {Attr::s("equation", "thk,hnk->thn")})
            .node("Reshape", {"y", "j"}, {"logits"});
      },
      kBad, "with matrices of shape");
  const auto codes = [](auto& b, int64_t scales, uint8_t zero, const std::vector<int64_t>& reshaped = {}) {
    b.bytes("c", {1, 4, 64}, std::vector<uint8_t>(256));
    b.floats("s", {1, 4, scales}, std::vector<float>(static_cast<size_t>(4 * scales)));
    b.bytes("z", {1, 4, scales}, std::vector<uint8_t>(static_cast<size_t>(4 * scales), zero));
    b.floats("wide", {4, 64}, std::vector<float>(256)).node("MatMul", {"h", "wide"}, {"x0"});
    b.ints("one", {-1, 1, 64}).ints("j", {-1, 4}).node("Reshape", {"x0", "one"}, {"x"});
    b.node("DequantizeLinear", {"c", "s", "z"}, {"w"}, {Attr::i("axis", 2), Attr::i("block_size", 64)});
    if (!reshaped.empty()) b.ints("as", reshaped).node("Reshape", {"w", "as"}, {"v"});
    b.node("Einsum", {"x", reshaped.empty() ? "w" : "v"}, {"y"}, {Attr::s("equation", "thk,hnk->thn")})
        .node("Reshape", {"y", "j"}, {"logits"});
  };
  logits(
      "codes that are less than a block",
      [](auto& b) {
        b.bytes("c", {1, 2, 0}, {}).floats("s", {1, 2, 0}, {}).bytes("z", {1, 2, 0}, {});
        b.ints("one", {-1, 1, 4}).node("Reshape", {"h", "one"}, {"x"});
        b.node("DequantizeLinear", {"c", "s", "z"}, {"w"}, {Attr::i("axis", 2), Attr::i("block_size", 16)});
        b.node("Einsum", {"x", "w"}, {"logits"}, {Attr::s("equation", "thk,hnk->thn")});
      },
      kUnsupported, "blocks");
  logits(
      "an empty dimension beside one that no size holds",
      [](auto& b) {
        b.bytes("c", {0, int64_t{1} << 62}, {}).floats("s", {1, 1}, {1});
        b.node("GatherBlockQuantized", {"c", "input_ids", "s"}, {"logits"}, {}, "com.microsoft");
      },
      kBad, "invalid shape");
  logits(
      "a scale too many", [codes](auto& b) { codes(b, 2, 128); }, kBad, "the shape [1, 4, 1]");
  logits(
      "another zero point", [codes](auto& b) { codes(b, 1, 127); }, kUnsupported, "zero points");
  logits(
      "codes that are seen in another shape",
      [codes](auto& b) {
        codes(b, 1, 128, {1, 64, 4});
      },
      kBad, "needs float32");
  logits(
      "logits of a wrong shape",
      [](auto& b) {
        b.ints("s", {-1, 2, 2}).node("Neg", {"h"}, {"n"}).node("Reshape", {"n", "s"}, {"logits"});
      },
      kBad, "logits");
  logits(
      "logits that mix tokens",
      [](auto& b) {
        b.node("Transpose", {"h"}, {"ht"}, {Attr::ints("perm", {1, 0})})
            .node("Neg", {"ht"}, {"n"})
            .node("Transpose", {"n"}, {"logits"}, {Attr::ints("perm", {1, 0})});
      },
      kUnsupported, "row by row");
  logits(
      "state without output", [](auto& b) { b.input("a.state", kFloat, {2}).node("Neg", {"h"}, {"logits"}); },
      kBad, "a.state");
  logits(
      "state read by an ordinary node",
      [](auto& b) {
        b.input("a.state", kFloat, {4}).node("Add", {"h", "a.state"}, {"logits"});
      },
      kBad, "stateful");
  logits(
      "state output that updates nothing",
      [](auto& b) {
        b.output("a.state.out", kFloat, {kT, 4})
            .node("Neg", {"h"}, {"a.state.out"})
            .node("Neg", {"h"}, {"logits"});
      },
      kBad, "a.state.out");
  logits(
      "more dimensions than an operator has room for",
      [](auto& b) {
        b.floats("deep", {1, 1, 1, 1, 1, 1, 1, 2}, {1, 2});
        b.tensor(tensor_bytes("indices", kInt64, {1, 1, 1}, std::string(8, '\0')));
        b.node("Gather", {"deep", "indices"}, {"deeper"}).node("Transpose", {"deeper"}, {"logits"});
      },
      kUnsupported, "10 dimensions");
  logits(
      "state of symbolic shape",
      [](auto& b) { b.input("a.state", kFloat, {kT}).node("Neg", {"h"}, {"logits"}); }, kBad, "fixed");
  logits(
      "state of integers", [](auto& b) { b.input("a.state", kInt64, {2}).node("Neg", {"h"}, {"logits"}); },
      kBad, "float32");
  logits(
      "state larger than any memory",
      [](auto& b) {
        b.input("a.state", kFloat, {1ll << 40, 1 << 20}).node("Neg", {"h"}, {"logits"});
      },
      kBad, "invalid shape");
  logits(
      "unknown input", [](auto& b) { b.input("mask", kFloat, {kT}).node("Neg", {"h"}, {"logits"}); },
      kUnsupported, "mask");
  logits(
      "unknown output",
      [](auto& b) {
        b.node("Neg", {"h"}, {"logits"}).node("Exp", {"h"}, {"e"}).output("e", kFloat, {kT, 4});
      },
      kUnsupported, "'e'");

  // --- the stateful operators ---
  file("attention with no heads", Attention{.heads = 0}.build(), kBad, "'num_heads'");
  file("attention with heads that its KV heads do not divide", Attention{.heads = 3}.build(), kBad,
       "multiple");
  file("attention with a head of odd size", Attention{.heads = 1, .kv_heads = 1, .dim = 3}.build(), kBad,
       "even");
  file("attention with a window of nothing", Attention{.window = 0}.build(), kBad, "'window'");
  file("attention with a window of a terabyte", Attention{.window = int64_t{1} << 40}.build(), kBad,
       "'window'");
  file("attention with sinks below none", Attention{.sinks = -1}.build(), kBad, "'sinks'");
  file("attention with a frequency too many", Attention{.inv_freq = {1, 2}}.build(), kBad, "rope_inv_freq");
  file("attention with keys for a longer window", Attention{.keys = {2, 5, 2}}.build(), kBad, "k.state");
  file("attention with values of another head", Attention{.values = {1, 4, 2}}.build(), kBad, "v.state");
  file("attention with a constant position", Attention{.position = "number"}.build(), kBad, "'position'");
  file("attention with the state as its values", Attention{.third = "v.state"}.build(), kBad, "stateful");
  file("attention wider than its input", Attention{.dim = 4}.build(), kBad, "needs");
  file("attention wider than any", Attention{.dim = int64_t{1} << 20}.build(), kBad, "2^20");
  file("memory wider than any", Memory{.dim = int64_t{1} << 20}.build(), kBad, "2^20");
  file("memory with more hidden channels than any", Memory{.hidden = int64_t{1} << 22}.build(), kBad, "2^22");
  file("memory with larger matrices than any",
       Memory{.dim = int64_t{1} << 10, .hidden = int64_t{1} << 15}.build(), kBad, "2^24");
  file("memory with no chunk", Memory{.chunk = 0}.build(), kBad, "'chunk'");
  file("memory with hidden below none", Memory{.hidden = -3}.build(), kBad, "'hidden'");
  file("memory with another hidden size than its norms", Memory{.hidden = 4}.build(), kBad,
       "needs the shape");
  file("memory with a state of another shape", Memory{.gate = {2, 2, 3}}.build(), kBad, "w.gate.state");
  file("memory with one sum for two heads", Memory{.beta_sum = {1}}.build(), kBad, "beta_sum.state");
  file("memory with a rate for each channel", Memory{.eta = "h"}.build(), kBad, "needs the shape");
  file("memory with a norm that depends on the position", Memory{.computed_norm = true}.build(), kUnsupported,
       "constant");
  file("memory with more heads than its input", Memory{.heads = 4}.build(), kBad, "needs the shape");

  const auto linear = [this](const char* what, const std::function<void(LinearModel&)>& spoil,
                             const char* says) {
    LinearModel model;
    spoil(model.filled());
    file(what, model.builder().build(), kBad, says);
  };
  using Linear = LinearModel&;
  linear(
      "linear memory with no KV heads", [](Linear m) { m.kv_heads = 0; }, "'num_kv_heads'");
  linear(
      "linear memory with heads that its KV heads do not divide", [](Linear m) { m.kv_heads = 3; },
      "multiple");
  linear(
      "linear memory with half of the KV heads", [](Linear m) { m.kv_heads = 1; }, "needs the shape");
  linear(
      "linear memory with a state of other heads",
      [](Linear m) {
        m.state = {1, 8, 8};
      },
      "matrix.state");
  linear(
      "linear memory with a state of other channels",
      [](Linear m) {
        m.state = {2, 8, 4};
      },
      "matrix.state");
  linear(
      "linear memory with a rate for each channel", [](Linear m) { m.eta = "k"; }, "needs the shape");
  linear(
      "linear memory with the queries as its values", [](Linear m) { m.third = "q"; }, "needs the shape");
  linear(
      "linear memory with the state as its values",
      [](Linear m) { m.third = "layers.0.memory.weight.matrix.state"; }, "stateful");
  linear(
      "linear memory with half of a delta rule", [](Linear m) { m.delta = 2; }, "'delta'");

  // --- quantised weights ---
  file("3 bits", Quantised{.bits = 3}.build(), kUnsupported, "3 bits");
  file("blocks of 8", Quantised{.block = 8, .codes = {4, 8, 4}}.build(), kBad, "'block_size'");
  file("blocks of 48", Quantised{.block = 48, .codes = {4, 1, 24}}.build(), kUnsupported, "blocks of 48");
  file("blocks of 512", Quantised{.block = 512}.build(), kUnsupported, "blocks of 512");
  file("codes of 8 bits said to have 4", Quantised{.codes = {4, 1, 64}}.build(), kBad, "needs the shape");
  file("scales for half the rows", Quantised{.scales = {2, 1}}.build(), kBad, "scale for each block");
  file("float16 scales for half the rows", Quantised{.scales = {2, 1}, .scale = "half"}.build(), kBad,
       "scale for each block");
  file("scales of integers", Quantised{.scale = "codes"}.build(), kBad, "float32");
  file("float16 where only float32 is read", Quantised{.more = {"", "", "half"}}.build(), kBad, "float16");
  file("zero points for half the rows", Quantised{.points = {2}, .more = {"points"}}.build(), kBad,
       "zero point");
  const Quantised affine{.block = 32,
                         .codes = {4, 2, 16},
                         .scales = {4, 2},
                         .zeros = {4, 2},
                         .more = {"zeros"},
                         .scale = "half"};
  const auto spoiled_affine = [&](auto spoil) {
    Quantised model = affine;
    spoil(model);
    return model.build();
  };
  file("float16 zero points for half the rows", spoiled_affine([](auto& m) {
         m.zeros = {2, 2};
       }),
       kBad, "zero point");
  file("float16 zero points packed as codes", spoiled_affine([](auto& m) {
         m.zeros = {4, 1};
       }),
       kBad, "zero point");
  file("zero points of float32", spoiled_affine([](auto& m) { m.more = {"scales"}; }), kBad, "uint8");
  file("a bias for half the rows of affine blocks", spoiled_affine([](auto& m) {
         m.more = {"zeros", "", "scales"};
       }),
       kBad, "shape");
  file("a group index", Quantised{.more = {"", "points"}}.build(), kUnsupported, "g_idx");
  file("more rows than there are", Quantised{.N = 5}.build(), kBad, "needs the shape");
  file("rows of no columns", Quantised{.K = 0}.build(), kBad, "'K'");
  file("columns beyond 31 bits", Quantised{.K = int64_t{1} << 31}.build(), kBad, "'K'");
}

}  // namespace allmem::test
