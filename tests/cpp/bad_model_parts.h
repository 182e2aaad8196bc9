// What models that are damaged or mean harm are made of, and the list of them.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

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
  std::vector<int64_t> codes = {4, 1, 32}, scales = {4, 1}, points = {}, zeros = {};
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
    b.halves("zeros", zeros, std::vector<uint16_t>(count(zeros), 0x4800));
    std::vector<std::string> inputs{"x", "codes", scale};
    inputs.insert(inputs.end(), more.begin(), more.end());
    b.node("MatMulNBits", inputs, {"logits"},
           {Attr::i("K", K), Attr::i("N", N), Attr::i("bits", bits), Attr::i("block_size", block)},
           "com.microsoft");
    return b.build();
  }
};

// What is wrong, the bytes, and what the refusal must say.
struct BadModels {
  std::vector<BadModel> all;

  void add_graphs();     // bad_graphs.h
  void add_operators();  // bad_operators.h

 private:
  using enum Refusal;
  using Spoil = std::function<void(OnnxBuilder&)>;

  void file(const char* what, std::string bytes, Refusal refusal, const char* says) {
    all.push_back({what, std::move(bytes), refusal, says});
  }
  void graph(const char* what, const Spoil& spoil, Refusal refusal, const char* says) {
    OnnxBuilder b = complete();
    spoil(b);
    file(what, b.build(), refusal, says);
  }
  void logits(const char* what, const Spoil& spoil, Refusal refusal, const char* says) {
    OnnxBuilder b = without_logits();
    spoil(b);
    file(what, b.build(), refusal, says);
  }
};

}  // namespace allmem::test
