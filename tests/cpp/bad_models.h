// Models that are damaged or mean harm, made by hand: what is wrong, the bytes, and what the refusal must
// say. One table for the C++ loader and for the C API.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "linear_model.h"
#include "onnx_builder.h"

namespace allmem::test {

enum class Refusal {
  kBad,
  kUnsupported
};  // damaged or inconsistent; or well-formed but not for this runtime

struct BadModel {
  std::string what;
  std::string bytes;  // of model.onnx
  Refusal refusal;
  std::string says;  // somewhere in the sentence
};

inline std::string raw(size_t size) { return std::string(size, '\1'); }

// A graph that loads.
inline OnnxBuilder complete() {
  OnnxBuilder b;
  b.defaults().input("input_ids", kInt64, {kT}).output("logits", kFloat, {kT, 4});
  b.floats("table", {4, 4}, std::vector<float>(16, 1.0f)).node("Gather", {"table", "input_ids"}, {"logits"});
  return b;
}

// One that lacks only the node that makes `logits` from h [T, 4].
inline OnnxBuilder without_logits() {
  OnnxBuilder b;
  b.defaults()
      .input("input_ids", kInt64, {kT})
      .input("position", kInt64, {})
      .output("logits", kFloat, {kT, 4});
  b.floats("table", {4, 4}, std::vector<float>(16, 1.0f)).node("Gather", {"table", "input_ids"}, {"h"});
  return b;
}

// `logits` by one attention over h, with two heads of two channels when nothing is changed.
struct Attention {
  int64_t heads = 2, kv_heads = 2, dim = 2, window = 3, sinks = 1;
  std::vector<float> inv_freq = {1.0f};
  std::vector<int64_t> keys = {2, 4, 2}, values = {2, 4, 2};  // shapes of the states
  std::string position = "position", third = "h";

  std::string build() const {
    OnnxBuilder b = without_logits();
    b.input("k.state", kFloat, keys).output("k.state.out", kFloat, keys);
    b.input("v.state", kFloat, values).output("v.state.out", kFloat, values);
    b.ints("number", {5});
    b.node("SlidingWindowAttention", {"h", "h", third, "k.state", "v.state", position},
           {"a", "k.state.out", "v.state.out"},
           {Attr::i("num_heads", heads), Attr::i("num_kv_heads", kv_heads), Attr::i("head_dim", dim),
            Attr::i("window", window), Attr::i("sinks", sinks), Attr::floats("rope_inv_freq", inv_freq)},
           "allmem");
    return b.node("Neg", {"a"}, {"logits"}).build();
  }
};

// `logits` by one memory over h, with two heads of two channels and a hidden size of three.
struct Memory {
  int64_t heads = 2, kv_heads = 2, dim = 2, hidden = 3, chunk = 2;
  std::vector<int64_t> gate = {2, 3, 2}, beta_sum = {2};  // shapes of states
  std::string eta = "rate";
  bool computed_norm = false;

  std::string build() const {
    OnnxBuilder b = without_logits();
    const std::vector<int64_t> up = {2, 3, 2}, down = {2, 2, 3};
    b.floats("to_rate", {2, 4}, std::vector<float>(8, 0.1f));
    b.node("Gemm", {"h", "to_rate"}, {"rate"}, {Attr::i("transB", 1)});
    b.floats("norm_rows", {2, 3}, std::vector<float>(6, 1.0f)).floats("norm_down", {2, 2}, {1, 1, 1, 1});
    std::vector<std::string> inputs{"h", "h", "h", eta, "rate", "norm_rows", "norm_rows", "norm_down"};
    std::vector<std::string> outputs{"m"};
    const auto state = [&](const std::string& name, const std::vector<int64_t>& shape) {
      b.input(name + ".state", kFloat, shape).output(name + ".state.out", kFloat, shape);
      inputs.push_back(name + ".state");
      outputs.push_back(name + ".state.out");
    };
    for (const char* kind : {"w", "s", "g"}) {
      state(std::string(kind) + ".gate", kind[0] == 'w' ? gate : up);
      state(std::string(kind) + ".up", up);
      state(std::string(kind) + ".down", down);
    }
    state("beta_sum", beta_sum);
    inputs.push_back("position");
    if (computed_norm) {
      b.node("Cast", {"position"}, {"now"}, {Attr::i("to", kFloat)})
          .node("Mul", {"now", "norm_rows"}, {"norms"});
      inputs[5] = "norms";
    }
    b.node("TestTimeMemory", inputs, outputs,
           {Attr::i("num_heads", heads), Attr::i("num_kv_heads", kv_heads), Attr::i("head_dim", dim),
            Attr::i("hidden", hidden), Attr::i("chunk", chunk)},
           "allmem");
    return b.node("Neg", {"m"}, {"logits"}).build();
  }
};

// `logits` by one quantised matrix over x [T, 64].
struct Quantised {
  int64_t bits = 4, block = 64, K = 64, N = 4;
  std::vector<int64_t> codes = {4, 1, 32}, scales = {4, 1}, points = {};
  std::vector<std::string> more = {};  // inputs after the scales
  std::string scale = "scales";        // the name of the scales; "half": float16

  std::string build() const {
    OnnxBuilder b;
    b.defaults().input("input_ids", kInt64, {kT}).output("logits", kFloat, {kT, 4});
    const auto count = [](const std::vector<int64_t>& shape) {
      size_t product = 1;
      for (const int64_t dim : shape) product *= static_cast<size_t>(dim);
      return product;
    };
    b.floats("table", {4, 64}, std::vector<float>(256, 1.0f)).node("Gather", {"table", "input_ids"}, {"x"});
    b.bytes("codes", codes, std::vector<uint8_t>(count(codes), 0x78));
    b.floats("scales", scales, std::vector<float>(count(scales), 1.0f));
    b.bytes("points", points, std::vector<uint8_t>(count(points), 8));
    b.halves("half", scales, std::vector<uint16_t>(count(scales), 0x3C00));
    std::vector<std::string> inputs{"x", "codes", scale};
    inputs.insert(inputs.end(), more.begin(), more.end());
    b.node("MatMulNBits", inputs, {"logits"},
           {Attr::i("K", K), Attr::i("N", N), Attr::i("bits", bits), Attr::i("block_size", block)},
           "com.microsoft");
    return b.build();
  }
};

inline std::vector<BadModel> bad_models() {
  using enum Refusal;
  std::vector<BadModel> all;
  const auto file = [&all](const char* what, std::string bytes, Refusal refusal, const char* says) {
    all.push_back({what, std::move(bytes), refusal, says});
  };
  using Spoil = std::function<void(OnnxBuilder&)>;
  const auto graph = [&](const char* what, const Spoil& spoil, Refusal refusal, const char* says) {
    OnnxBuilder b = complete();
    spoil(b);
    file(what, b.build(), refusal, says);
  };
  const auto logits = [&](const char* what, const Spoil& spoil, Refusal refusal, const char* says) {
    OnnxBuilder b = without_logits();
    spoil(b);
    file(what, b.build(), refusal, says);
  };
  const std::vector<Attr> t{Attr::i("transB", 1)};

  // --- files that are no model ---
  const std::string whole = complete().build();
  file("nothing", "", kBad, "no graph");
  file("a page in place of the file", "<!DOCTYPE html><html><body>404 Not Found</body></html>", kBad,
       "damaged");
  file("a Git LFS pointer", "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 2576\n", kBad,
       "damaged");
  file("a zip archive", std::string("PK\3\4\x14\0\0\0\x08\0", 10) + raw(40), kBad, "damaged");
  file("zeros", std::string(4096, '\0'), kBad, "damaged");
  file("only metadata", OnnxBuilder().defaults().build().substr(0, 2), kBad, "no graph");
  file("cut in the middle", whole.substr(0, whole.size() / 2), kBad, "damaged");
  file("without its last byte", whole.substr(0, whole.size() - 1), kBad, "damaged");
  file("with one byte more", whole + "\x0A", kBad, "damaged");
  file("two graphs", whole + whole, kBad, "two graphs");
  file("a length beyond the file", "\x3A\xFF\xFF\xFF\xFF\x7F", kBad, "damaged");
  file("a number of eleven bytes", "\x08" + std::string(11, '\xFF'), kBad, "damaged");
  file("a group, which protobuf gave up", "\x0B\x0C", kBad, "damaged");

  // --- a graph that loads, and something wrong ---
  graph(
      "initializer without name", [](auto& b) { b.tensor(tensor_bytes("", kFloat, {1}, raw(4))); }, kBad,
      "without a name");
  graph(
      "two initializers of one name", [](auto& b) { b.floats("table", {1}, {1}); }, kBad, "table");
  graph(
      "too few bytes", [](auto& b) { b.tensor(tensor_bytes("w", kFloat, {2}, raw(4))); }, kBad, "need 8");
  graph(
      "too many bytes", [](auto& b) { b.tensor(tensor_bytes("w", kFloat, {2}, raw(12))); }, kBad,
      "has 12 bytes");
  graph(
      "negative dimension", [](auto& b) { b.tensor(tensor_bytes("w", kFloat, {-2}, raw(8))); }, kBad,
      "negative");
  graph(
      "huge dimension", [](auto& b) { b.tensor(tensor_bytes("w", kFloat, {INT64_MAX}, raw(8))); }, kBad,
      "too many elements");
  graph(
      "overflowing product",
      [](auto& b) {
        b.tensor(tensor_bytes("w", kFloat, {1ll << 32, 1ll << 32, 4}, raw(8)));
      },
      kBad, "too many elements");
  graph(
      "product that wraps to the right size",
      [](auto& b) {
        b.tensor(tensor_bytes("w", kFloat, {1ll << 62, 4, 2}, raw(0)));
      },
      kBad, "too many elements");
  graph(
      "nine dimensions",
      [](auto& b) { b.tensor(tensor_bytes("w", kFloat, std::vector<int64_t>(9, 1), raw(4))); }, kBad,
      "8 dimensions");
  graph(
      "unknown element type", [](auto& b) { b.tensor(tensor_bytes("w", 99, {1}, raw(4))); }, kUnsupported,
      "type 99");
  graph(
      "string tensor", [](auto& b) { b.tensor(tensor_bytes("w", 8, {1}, raw(4))); }, kUnsupported, "type 8");
  graph(
      "sparse initializer", [](auto& b) { b.raw_graph_field(15, ""); }, kUnsupported, "sparse");
  graph(
      "node without operator", [](auto& b) { b.node("", {"table"}, {"y"}); }, kBad, "without an operator");
  graph(
      "node without output",
      [](auto& b) {
        b.node("Add", {"table", "table"}, {});
      },
      kBad, "no output");
  graph(
      "node with an empty output only",
      [](auto& b) {
        b.node("Add", {"table", "table"}, {""});
      },
      kBad, "no output");
  logits(
      "logits as an output that the operator does not have",
      [](auto& b) {
        b.node("Neg", {"h"}, {"other", "logits"});
      },
      kBad, "no node produces 'logits'");
  graph(
      "output named like an initializer", [](auto& b) { b.node("Neg", {"logits"}, {"table"}); }, kBad,
      "already taken");
  graph(
      "output named like an input", [](auto& b) { b.node("Neg", {"logits"}, {"input_ids"}); }, kBad,
      "already taken");
  graph(
      "one output of two nodes", [](auto& b) { b.node("Neg", {"table"}, {"logits"}); }, kBad,
      "already taken");
  graph(
      "input that nothing makes", [](auto& b) { b.node("Neg", {"ghost"}, {"y"}, {}, "", "haunted"); }, kBad,
      "haunted");
  graph(
      "node that reads its own output", [](auto& b) { b.node("Neg", {"y"}, {"y"}); }, kBad, "cycle");
  graph(
      "cycle of two nodes", [](auto& b) { b.node("Neg", {"b"}, {"a"}).node("Neg", {"a"}, {"b"}); }, kBad,
      "cycle");
  graph(
      "attribute without name", [](auto& b) { b.node("Neg", {"table"}, {"y"}, {Attr::i("", 1)}); }, kBad,
      "without a name");
  graph(
      "attribute given twice",
      [](auto& b) {
        b.node("Neg", {"table"}, {"y"}, {Attr::i("a", 1), Attr::i("a", 2)});
      },
      kBad, "twice");
  graph(
      "two inputs of one name", [](auto& b) { b.input("input_ids", kInt64, {kT}); }, kBad,
      "two graph inputs");
  graph(
      "input without name", [](auto& b) { b.input("", kInt64, {}); }, kBad, "without a name");
  graph(
      "two outputs of one name",
      [](auto& b) {
        b.output("logits", kFloat, {kT, 4});
      },
      kBad, "two graph outputs");
  graph(
      "output that nothing makes", [](auto& b) { b.output("ghost", kFloat, {}); }, kBad, "ghost");
  graph(
      "function without name", [](auto& b) { b.function("x", ""); }, kBad, "function");
  graph(
      "node that is no message", [](auto& b) { b.raw_graph_field(1, "\xFF\xFF\xFF"); }, kBad, "damaged");
  graph(
      "tensor that is no message", [](auto& b) { b.raw_graph_field(5, "\x0A\xFF\xFF\xFF\xFF\x0F"); }, kBad,
      "damaged");
  graph(
      "field number 0", [](auto& b) { b.raw_graph_field(1, std::string("\0\1", 2)); }, kBad, "damaged");
  graph(
      "data in another file, when there is none",
      [](auto& b) {
        b.external("w", kFloat, {2}, {{"location", "../../etc/passwd"}, {"offset", "0"}, {"length", "8"}});
      },
      kBad, "'w'");
  graph(
      "a default value for the ids", [](auto& b) { b.ints("input_ids", {1}); }, kBad, "default value");
  graph(
      "an unknown location for data",
      [](auto& b) {
        std::string message = tensor_bytes("w", kFloat, {1}, raw_bytes<float>({1}));
        protozero::pbf_writer(message).add_enum(14, 7);
        b.tensor(message);
      },
      kBad, "unknown data_location");

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
        b.floats("c", {20000, 1}, std::vector<float>(20000))
            .floats("r", {1, 20000}, std::vector<float>(20000))
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

  // --- what the file says of itself ---
  const auto said = [&](const char* what, OnnxBuilder b, Refusal refusal, const char* says) {
    b.input("input_ids", kInt64, {kT}).output("logits", kFloat, {kT, 4});
    b.floats("table", {4, 4}, std::vector<float>(16)).node("Gather", {"table", "input_ids"}, {"logits"});
    file(what, b.build(), refusal, says);
  };
  said("no format", OnnxBuilder().opset("", 23), kBad, "not an AllMem model");
  said("a format of the future", OnnxBuilder().opset("", 23).metadata("allmem.format", "2"), kUnsupported,
       "update");
  said("an operator set of the past", OnnxBuilder().opset("", 12).metadata("allmem.format", "1"),
       kUnsupported, "version 12");
  said("allmem operators of the future",
       OnnxBuilder().opset("", 23).opset("allmem", 2).metadata("allmem.format", "1"), kUnsupported,
       "version 2");
  said("no operator set", OnnxBuilder().metadata("allmem.format", "1"), kBad, "which version");
  said("a negative window", OnnxBuilder().defaults().metadata("allmem.window", "-4"), kBad,
       "not a whole number");
  said("a window that is no number", OnnxBuilder().defaults().metadata("allmem.window", "4k"), kBad,
       "not a whole number");
  said("more layers than 31 bits count", OnnxBuilder().defaults().metadata("allmem.layers", "4294967297"),
       kBad, "not a whole number");
  said("a chunk beyond 64 bits", OnnxBuilder().defaults().metadata("allmem.chunk", "18446744073709551616"),
       kBad, "not a whole number");

  // --- inputs and outputs of the graph ---
  const auto signature = [&](const char* what, const Spoil& spoil, Refusal refusal, const char* says) {
    OnnxBuilder b;
    b.defaults()
        .floats("table", {4, 4}, std::vector<float>(16))
        .node("Gather", {"table", "input_ids"}, {"logits"});
    spoil(b);
    file(what, b.build(), refusal, says);
  };
  signature(
      "no ids",
      [](auto& b) {
        b.output("logits", kFloat, {kT, 4});
      },
      kBad, "input_ids");
  signature(
      "ids of 32 bits",
      [](auto& b) {
        b.input("input_ids", kInt32, {kT}).output("logits", kFloat, {kT, 4});
      },
      kBad, "must be int64");
  signature(
      "ids in two dimensions",
      [](auto& b) {
        b.input("input_ids", kInt64, {1, kT}).output("logits", kFloat, {kT, 4});
      },
      kBad, "shape [T]");
  signature(
      "seven tokens at a time",
      [](auto& b) {
        b.input("input_ids", kInt64, {7}).output("logits", kFloat, {7, 4});
      },
      kUnsupported, "fixed number of tokens (7)");
  signature(
      "no logits", [](auto& b) { b.input("input_ids", kInt64, {kT}); }, kBad, "no output 'logits'");

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

  const auto linear = [&file](const char* what, const auto& spoil, const char* says) {
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
  file("a group index", Quantised{.more = {"", "points"}}.build(), kUnsupported, "g_idx");
  file("more rows than there are", Quantised{.N = 5}.build(), kBad, "needs the shape");
  file("rows of no columns", Quantised{.K = 0}.build(), kBad, "'K'");
  file("columns beyond 31 bits", Quantised{.K = int64_t{1} << 31}.build(), kBad, "'K'");
  return all;
}

}  // namespace allmem::test
