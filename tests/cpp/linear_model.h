// A model that is one linear memory (allmem::LinearMemory) between an embedding and the logits: as an ONNX
// file, and in double precision.
#pragma once

#include <cmath>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "onnx_builder.h"

namespace allmem::test {

struct LinearModel {
  int64_t vocab = 31, heads = 4, kv_heads = 2, dim = 8, delta = 1;
  std::vector<int64_t> state = {2, 8, 8};  // the shape that the file says
  std::string eta = "eta", third = "v";    // inputs of the memory
  std::map<std::string, std::vector<float>> weights = {};

  int64_t width() const { return heads * dim; }

  LinearModel& filled(unsigned seed = 1) {
    std::mt19937 random(seed);
    const auto add = [&](const std::string& name, int64_t rows, int64_t cols) {
      std::normal_distribution<float> normal(0, 1 / std::sqrt(static_cast<float>(width())));
      auto& values = weights[name];
      for (int64_t i = 0; i < rows * cols; ++i) values.push_back(normal(random));
    };
    add("embedding", vocab, width());
    for (float& value : weights["embedding"]) value *= 4;
    add("wq", width(), width());
    for (const char* name : {"wk", "wv"}) add(name, kv_heads * dim, width());
    for (const char* name : {"w_eta", "w_beta"}) add(name, kv_heads, width());
    weights["b_beta"].assign(static_cast<size_t>(kv_heads), 2.0f);  // keeps most of it
    for (float& value : weights["wk"]) value *= 0.5f;  // ||k||² η < 2: the delta rule converges
    return *this;
  }

  OnnxBuilder builder() const {
    OnnxBuilder b;
    b.defaults().metadata("allmem.window", "4").metadata("allmem.sinks", "0").metadata("allmem.chunk", "1");
    b.input("input_ids", kInt64, {kT}).input("position", kInt64, {}).output("logits", kFloat, {kT, vocab});
    b.input("layers.0.memory.weight.matrix.state", kFloat, state)
        .output("layers.0.memory.weight.matrix.state.out", kFloat, state);
    for (const auto& [name, values] : weights) {
      const auto count = static_cast<int64_t>(values.size());
      b.floats(name, name == "b_beta" ? std::vector{count} : std::vector{count / width(), width()}, values);
    }
    b.node("Gather", {"embedding", "input_ids"}, {"x"});
    const auto linear = [&b](const std::vector<std::string>& inputs, const char* y) {
      b.node("Gemm", inputs, {y}, {Attr::i("transB", 1)});
    };
    linear({"x", "wq"}, "q");
    linear({"x", "wk"}, "k");
    linear({"x", "wv"}, "v");
    linear({"x", "w_eta"}, "eta_in");
    linear({"x", "w_beta", "b_beta"}, "beta_in");
    b.node("Sigmoid", {"eta_in"}, {"eta"}).node("Sigmoid", {"beta_in"}, {"beta"});
    b.node("LinearMemory", {"q", "k", third, eta, "beta", "layers.0.memory.weight.matrix.state"},
           {"mem", "layers.0.memory.weight.matrix.state.out"},
           {Attr::i("num_heads", heads), Attr::i("num_kv_heads", kv_heads), Attr::i("head_dim", dim),
            Attr::i("delta", delta)},
           "allmem", "memory");
    b.node("Add", {"x", "mem"}, {"mixed"});
    linear({"mixed", "embedding"}, "logits");
    return b;
  }

  // Logits of every token, [T, vocab]. From `frozen_from` on the memory is only read.
  std::vector<double> reference(const std::vector<int32_t>& ids, size_t frozen_from = ~size_t{0}) const {
    const auto C = static_cast<size_t>(width()), D = static_cast<size_t>(dim);
    const auto H = static_cast<size_t>(heads), Hkv = static_cast<size_t>(kv_heads);
    const auto times = [&](const char* name, const std::vector<double>& x) {
      const std::vector<float>& w = weights.at(name);
      std::vector<double> y(w.size() / C, 0.0);
      for (size_t n = 0; n < y.size(); ++n)
        for (size_t c = 0; c < C; ++c) y[n] += double{w[n * C + c]} * x[c];
      return y;
    };
    const auto sigmoid = [](double x) { return 1 / (1 + std::exp(-x)); };
    std::vector<double> s(Hkv * D * D, 0.0), logits;
    for (size_t t = 0; t < ids.size(); ++t) {
      const float* row = weights.at("embedding").data() + static_cast<size_t>(ids[t]) * C;
      std::vector<double> x(row, row + C);
      const auto q = times("wq", x), k = times("wk", x), v = times("wv", x), e = times("w_eta", x),
                 decay = times("w_beta", x);
      for (size_t kv = 0; kv < Hkv && t < frozen_from; ++kv) {
        const double rate = sigmoid(e[kv]), kept = sigmoid(decay[kv] + double{weights.at("b_beta")[kv]});
        for (size_t i = 0; i < D; ++i) {
          double* matrix = s.data() + (kv * D + i) * D;
          double known = 0;
          for (size_t j = 0; j < D; ++j) known += delta != 0 ? kept * matrix[j] * k[kv * D + j] : 0;
          for (size_t j = 0; j < D; ++j)
            matrix[j] = kept * matrix[j] + rate * (v[kv * D + i] - known) * k[kv * D + j];
        }
      }
      for (size_t head = 0; head < H; ++head)
        for (size_t i = 0; i < D; ++i)
          for (size_t j = 0; j < D; ++j)
            x[head * D + i] += s[(head * Hkv / H * D + i) * D + j] * q[head * D + j];
      const auto row_of_logits = times("embedding", x);
      logits.insert(logits.end(), row_of_logits.begin(), row_of_logits.end());
    }
    return logits;
  }
};

}  // namespace allmem::test
