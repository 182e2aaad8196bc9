// A one-layer AllMem model with random weights, float32 or quantised: as an ONNX file, and as a plain
// double-precision reference that keeps the whole history and knows nothing of rings, blocks or chunks cut by
// calls.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "onnx_builder.h"

namespace allmem::test {

struct TinyConfig {
  int64_t vocab = 37, width = 24, heads = 4, kv_heads = 2, dim = 8, window = 7, sinks = 2, hidden = 12,
          chunk = 5;
  unsigned seed = 1;
  unsigned bits = 0;  // 4 or 8: linear weights in blocks of kBlock columns, and the embedding in 8 bits
};

struct TinyModel {
  static constexpr size_t kBlock = 64;
  struct Quantised {
    unsigned bits;
    std::vector<uint8_t> codes;
    std::vector<float> scales;
    std::vector<uint16_t> half_scales;  // of 4 bits, instead
  };

  TinyConfig config;
  std::map<std::string, std::vector<float>> weights;  // where quantised, what the codes stand for
  std::map<std::string, Quantised> quantised;
  std::map<std::string, std::vector<int64_t>> shapes;
  std::vector<float> inv_freq;

  explicit TinyModel(const TinyConfig& the_config = {}) : config(the_config) {
    const auto [V, C, H, Hkv, D, W, S, h, chunk, seed, bits] = config;
    std::mt19937 random(seed);
    const auto add = [&](const std::string& name, const std::vector<int64_t>& shape, float mean,
                         float deviation) {
      std::normal_distribution<float> normal(mean, deviation);
      int64_t count = 1;
      for (const int64_t dim : shape) count *= dim;
      auto& values = weights[name];
      for (int64_t i = 0; i < count; ++i) values.push_back(normal(random));
      shapes[name] = shape;
    };
    const float width = 1.0f / std::sqrt(static_cast<float>(C));
    add("embedding", {V, C}, 0, 1);
    for (const char* norm : {"norm1", "norm2"}) add(norm, {C}, 1, 0.1f);
    add("wq", {H * D, C}, 0, width);
    add("wk", {Hkv * D, C}, 0, width);
    add("wv", {Hkv * D, C}, 0, width);
    add("wo", {C, H * D}, 0, width);
    add("w_eta", {Hkv, C}, 0, width);
    add("b_eta", {Hkv}, -3, 0.1f);  // a small η: the memory learns without amplifying rounding
    add("w_beta", {Hkv, C}, 0, width);
    add("alpha", {H * D}, 0.5f, 0.2f);
    add("w_gate", {2 * C, C}, 0, width);
    add("w_up", {2 * C, C}, 0, width);
    add("w_down", {C, 2 * C}, 0, width);
    const float memory = 1.0f / std::sqrt(static_cast<float>(D));
    add("memory.weight.gate.state", {Hkv, h, D}, 0, memory);
    add("memory.weight.up.state", {Hkv, h, D}, 0, memory);
    add("memory.weight.down.state", {Hkv, D, h}, 0, memory);
    for (const char* part : {"gate", "up", "down"}) {
      const std::string name = std::string("memory.weight.") + part + ".state";
      const int64_t rows = shapes[name][1], cols = shapes[name][2];
      auto& norms = weights[std::string("norm_") + part];
      for (int64_t r = 0; r < Hkv * rows; ++r) {
        double squares = 0;
        for (int64_t c = 0; c < cols; ++c)
          squares += std::pow(double{weights[name][static_cast<size_t>(r * cols + c)]}, 2);
        norms.push_back(static_cast<float>(std::sqrt(squares)));
      }
      shapes[std::string("norm_") + part] = {Hkv, rows};
    }
    for (int64_t i = 0; i < D / 2; ++i)
      inv_freq.push_back(
          static_cast<float>(std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(D))));
    if (bits == 0) return;
    for (const char* name : {"wq", "wk", "wv", "wo", "w_gate", "w_up", "w_down"}) quantise(name, bits);
    quantise("embedding", 8);
  }

  OnnxBuilder builder() const {
    const auto [V, C, H, Hkv, D, W, S, h, chunk, seed, bits] = config;
    OnnxBuilder b;
    b.defaults()
        .metadata("allmem.window", std::to_string(W))
        .metadata("allmem.sinks", std::to_string(S))
        .metadata("allmem.chunk", std::to_string(chunk));
    b.function("allmem", "SlidingWindowAttention").function("allmem", "TestTimeMemory");
    b.input("input_ids", kInt64, {kT}).input("position", kInt64, {});
    for (const auto& [name, values] : weights) {
      const auto found = quantised.find(name);
      if (found == quantised.end()) {
        b.floats(name, shapes.at(name), values);
        continue;
      }
      const auto& [name_bits, codes, scales, half_scales] = found->second;
      const int64_t rows = shapes.at(name)[0], blocks = shapes.at(name)[1] / int64_t{kBlock};
      b.bytes(name, {rows, blocks, static_cast<int64_t>(kBlock * name_bits / 8)}, codes);
      if (name_bits == 4) {
        b.halves(name + ".scales", {rows, blocks}, half_scales);
      } else {
        b.floats(name + ".scales", {rows, blocks}, scales);
      }
    }
    const auto state = [&](const std::string& name, const std::vector<int64_t>& shape) {
      b.input(name + ".state", kFloat, shape).output(name + ".state.out", kFloat, shape);
    };
    b.output("logits", kFloat, {kT, V});
    state("attention.keys", {Hkv, S + W, D});
    state("attention.values", {Hkv, S + W, D});
    for (const char* kind : {"weight", "momentum", "gradient"}) {
      for (const char* part : {"gate", "up", "down"}) {
        state("memory." + std::string(kind) + "." + part,
              shapes.at("memory.weight." + std::string(part) + ".state"));
      }
    }
    state("memory.beta_sum", {Hkv});

    const auto linear = [&](const std::string& x, const std::string& w, const std::string& y,
                            const std::string& bias = "", const std::string& name = "") {
      const auto found = quantised.find(w);
      if (found == quantised.end()) {
        b.node("Gemm", bias.empty() ? std::vector{x, w} : std::vector{x, w, bias}, {y},
               {Attr::i("transB", 1)}, "", name);
        return;
      }
      b.node("MatMulNBits", {x, w, w + ".scales"}, {y},
             {Attr::i("K", shapes.at(w)[1]), Attr::i("N", shapes.at(w)[0]),
              Attr::i("bits", found->second.bits), Attr::i("block_size", int64_t{kBlock})},
             "com.microsoft", name);
    };
    if (bits == 0) {
      b.node("Gather", {"embedding", "input_ids"}, {"x"});
    } else {
      b.ints("table_shape", {V, C}).node("Reshape", {"embedding", "table_shape"}, {"table"});
      b.node("GatherBlockQuantized", {"table", "input_ids", "embedding.scales"}, {"x"},
             {Attr::i("bits", 8), Attr::i("block_size", int64_t{kBlock}), Attr::i("gather_axis", 0),
              Attr::i("quantize_axis", 1)},
             "com.microsoft");
    }
    b.node("RMSNormalization", {"x", "norm1"}, {"n"}, {Attr::f("epsilon", 1e-6f)});
    linear("n", "wq", "q");
    linear("n", "wk", "k");
    linear("n", "wv", "v", "", "value projection");
    b.node(
        "SlidingWindowAttention",
        {"q", "k", "v", "attention.keys.state", "attention.values.state", "position"},
        {"swa", "attention.keys.state.out", "attention.values.state.out"},
        {Attr::i("num_heads", H), Attr::i("num_kv_heads", Hkv), Attr::i("head_dim", D), Attr::i("window", W),
         Attr::i("sinks", S), Attr::floats("rope_inv_freq", inv_freq), Attr::f("rope_scale", 1.0f)},
        "allmem", "attention");
    normalised(b, "q", H, D);
    normalised(b, "k", Hkv, D);
    linear("n", "w_eta", "eta_in", "b_eta");
    linear("n", "w_beta", "beta_in");
    b.node("Softplus", {"eta_in"}, {"eta"}).node("Sigmoid", {"beta_in"}, {"beta"});
    std::vector<std::string> inputs{"q_tilde", "k_tilde",   "v",       "eta",
                                    "beta",    "norm_gate", "norm_up", "norm_down"};
    std::vector<std::string> outputs{"mem"};
    for (const char* kind : {"weight", "momentum", "gradient"}) {
      for (const char* part : {"gate", "up", "down"}) {
        inputs.push_back("memory." + std::string(kind) + "." + part + ".state");
        outputs.push_back(inputs.back() + ".out");
      }
    }
    inputs.push_back("memory.beta_sum.state");
    outputs.push_back("memory.beta_sum.state.out");
    inputs.push_back("position");
    b.node("TestTimeMemory", inputs, outputs,
           {Attr::i("num_heads", H), Attr::i("num_kv_heads", Hkv), Attr::i("head_dim", D),
            Attr::i("hidden", h), Attr::i("chunk", chunk)},
           "allmem", "memory");
    b.node("Mul", {"alpha", "mem"}, {"gated"}).node("Add", {"swa", "gated"}, {"mixed"});
    linear("mixed", "wo", "o");
    b.node("Add", {"x", "o"}, {"y"});
    b.node("RMSNormalization", {"y", "norm2"}, {"n2"}, {Attr::f("epsilon", 1e-6f)});
    linear("n2", "w_gate", "g");
    linear("n2", "w_up", "u");
    b.node("Swish", {"g"}, {"sg"}).node("Mul", {"sg", "u"}, {"gu"});
    linear("gu", "w_down", "d");
    b.node("Add", {"y", "d"}, {"z"});
    linear("z", "embedding", "logits");
    return b;
  }

  // Logits of every token of `ids`, [T][vocab]. `frozen_from`: from this token on the memory is read only.
  std::vector<std::vector<double>> reference(const std::vector<int32_t>& ids,
                                             size_t frozen_from = ~size_t{0}) const;

 private:
  // A matrix whose rows are whole blocks, in MatMulNBits form; `weights` then has what the codes stand for.
  void quantise(const std::string& name, unsigned to_bits) {
    std::vector<float>& values = weights.at(name);
    const auto half = static_cast<float>(1 << (to_bits - 1));
    Quantised result{to_bits, {}, {}, {}};
    for (size_t block = 0; block < values.size(); block += kBlock) {
      float most = 0;
      for (size_t i = 0; i < kBlock; ++i) most = std::max(most, std::fabs(values[block + i]));
      float scale = most / (half - 1);
      if (to_bits == 4) {  // cut off to what float16 has; its exponent, 112 less, has room for weights
        const uint32_t cut = std::bit_cast<uint32_t>(scale) >> 13;
        scale = std::bit_cast<float>(cut << 13);
        result.half_scales.push_back(static_cast<uint16_t>(cut - (112u << 10)));
      } else {
        result.scales.push_back(scale);
      }
      for (size_t i = 0; i < kBlock; ++i) {
        float& value = values[block + i];
        const float code = std::round(value / scale);
        value = code * scale;
        const auto stored = static_cast<uint8_t>(code + half);
        if (to_bits == 4 && i % 2 == 1) {
          result.codes.back() = static_cast<uint8_t>(result.codes.back() | stored << 4);
        } else {
          result.codes.push_back(stored);
        }
      }
    }
    quantised[name] = std::move(result);
  }

  // NAME_tilde = l2norm(silu(NAME)) per head, spelled out in standard operators.
  static void normalised(OnnxBuilder& b, const std::string& name, int64_t heads, int64_t dim) {
    b.ints(name + "_split", {-1, heads, dim}).ints(name + "_join", {-1, heads * dim});
    b.ints(name + "_axis", {-1}).floats(name + "_eps", {}, {1e-6f});
    b.node("Sigmoid", {name}, {name + "_sigmoid"}).node("Mul", {name, name + "_sigmoid"}, {name + "_silu"});
    b.node("Reshape", {name + "_silu", name + "_split"}, {name + "_heads"});
    b.node("Mul", {name + "_heads", name + "_heads"}, {name + "_squared"});
    b.node("ReduceSum", {name + "_squared", name + "_axis"}, {name + "_sum"}, {Attr::i("keepdims", 1)});
    b.node("Add", {name + "_sum", name + "_eps"}, {name + "_safe"})
        .node("Sqrt", {name + "_safe"}, {name + "_norm"});
    b.node("Div", {name + "_heads", name + "_norm"}, {name + "_unit"});
    b.node("Reshape", {name + "_unit", name + "_join"}, {name + "_tilde"});
  }
};

using Row = std::vector<double>;

inline std::vector<Row> TinyModel::reference(const std::vector<int32_t>& ids, size_t frozen_from) const {
  const auto at = [](int64_t i) { return static_cast<size_t>(i); };
  const size_t C = at(config.width), H = at(config.heads), Hkv = at(config.kv_heads), D = at(config.dim);
  const size_t W = at(config.window), S = at(config.sinks), h = at(config.hidden), group = H / Hkv;
  const auto matrix = [&](const std::string& name) -> const std::vector<float>& { return weights.at(name); };
  const auto linear = [&](const Row& x, const std::string& name, const std::string& bias = "") {
    const auto& w = matrix(name);
    Row y(w.size() / x.size());
    for (size_t n = 0; n < y.size(); ++n) {
      y[n] = bias.empty() ? 0 : double{matrix(bias)[n]};
      for (size_t k = 0; k < x.size(); ++k) y[n] += x[k] * double{w[n * x.size() + k]};
    }
    return y;
  };
  const auto rms = [&](const Row& x, const std::string& name) {
    double squares = 0;
    for (const double value : x) squares += value * value;
    Row y(x.size());
    for (size_t i = 0; i < x.size(); ++i)
      y[i] = x[i] / std::sqrt(squares / static_cast<double>(x.size()) + 1e-6) * double{matrix(name)[i]};
    return y;
  };
  const auto sigmoid = [](double x) { return 1 / (1 + std::exp(-x)); };
  const auto tilde = [&](Row x) {
    for (double& value : x) value *= sigmoid(value);
    for (size_t head = 0; head < x.size(); head += D) {
      double squares = 1e-6;
      for (size_t i = 0; i < D; ++i) squares += x[head + i] * x[head + i];
      for (size_t i = 0; i < D; ++i) x[head + i] /= std::sqrt(squares);
    }
    return x;
  };
  const auto rotated = [&](const Row& x, size_t head, double position) {
    Row y(D);
    for (size_t i = 0; i < D / 2; ++i) {
      const double c = std::cos(position * double{inv_freq[i]}), s = std::sin(position * double{inv_freq[i]});
      y[i] = x[head * D + i] * c - x[head * D + i + D / 2] * s;
      y[i + D / 2] = x[head * D + i + D / 2] * c + x[head * D + i] * s;
    }
    return y;
  };

  struct Memory {
    Row w[3], s[3], g[3], norm[3];  // gate, up, down
    double beta_sum = 0;
  };
  std::vector<Memory> memories(Hkv);
  const char* const kParts[] = {"gate", "up", "down"};
  for (size_t kv = 0; kv < Hkv; ++kv) {
    for (size_t p = 0; p < 3; ++p) {
      const auto& w = matrix("memory.weight." + std::string(kParts[p]) + ".state");
      memories[kv].w[p].assign(w.begin() + static_cast<long>(kv * h * D),
                               w.begin() + static_cast<long>((kv + 1) * h * D));
      memories[kv].s[p] = memories[kv].g[p] = Row(h * D, 0.0);
      const auto& norm = matrix("norm_" + std::string(kParts[p]));
      const size_t rows = p == 2 ? D : h;
      memories[kv].norm[p].assign(norm.begin() + static_cast<long>(kv * rows),
                                  norm.begin() + static_cast<long>((kv + 1) * rows));
    }
  }
  const auto normalise = [&](const Row& w, const Row& norm) {
    Row y = w;
    const size_t cols = w.size() / norm.size();
    for (size_t r = 0; r < norm.size(); ++r) {
      double squares = 0;
      for (size_t c = 0; c < cols; ++c) squares += w[r * cols + c] * w[r * cols + c];
      for (size_t c = 0; c < cols; ++c) y[r * cols + c] *= norm[r] / std::sqrt(squares);
    }
    return y;
  };

  std::vector<Row> logits, keys, values;
  for (size_t t = 0; t < ids.size(); ++t) {
    for (Memory& memory : memories) {  // what the unfinished chunk has is learned before
      for (size_t p = 0; p < 3 && t == frozen_from; ++p) {
        memory.w[p] = normalise(memory.w[p], memory.norm[p]);
        for (size_t i = 0; i < h * D; ++i) {
          memory.w[p][i] -= memory.g[p][i];
          memory.s[p][i] += memory.g[p][i];
          memory.g[p][i] = 0;
        }
      }
    }
    const auto& table = matrix("embedding");
    Row x(table.begin() + static_cast<long>(at(ids[t]) * C),
          table.begin() + static_cast<long>((at(ids[t]) + 1) * C));
    const Row n = rms(x, "norm1");
    const Row q = linear(n, "wq"), k = linear(n, "wk"), v = linear(n, "wv");
    keys.push_back(k);
    values.push_back(v);
    const Row q_tilde = tilde(q), k_tilde = tilde(k), beta_in = linear(n, "w_beta"),
              eta_in = linear(n, "w_eta", "b_eta");
    Row mixed(H * D);
    for (size_t head = 0; head < H; ++head) {
      const size_t kv = head / group;
      Row y(D, 0.0);
      double total = 0;
      for (size_t s = 0; s <= t; ++s) {
        if (s >= S && s + W <= t) continue;
        const Row query = rotated(q, head, static_cast<double>(s < S ? std::min(t, S + W - 1) : t));
        const Row key = rotated(keys[s], kv, static_cast<double>(s));
        double score = 0;
        for (size_t i = 0; i < D; ++i) score += query[i] * key[i];
        const double weight = std::exp(score / std::sqrt(static_cast<double>(D)));
        total += weight;
        for (size_t i = 0; i < D; ++i) y[i] += weight * values[s][kv * D + i];
      }
      const Memory& memory = memories[kv];
      Row m(h);
      for (size_t j = 0; j < h; ++j) {
        double a = 0, u = 0;
        for (size_t i = 0; i < D; ++i) a += memory.w[0][j * D + i] * q_tilde[head * D + i];
        for (size_t i = 0; i < D; ++i) u += memory.w[1][j * D + i] * q_tilde[head * D + i];
        m[j] = a * sigmoid(a) * u;
      }
      for (size_t i = 0; i < D; ++i) {
        double o = q_tilde[head * D + i];
        for (size_t j = 0; j < h; ++j) o += memory.w[2][i * h + j] * m[j];
        mixed[head * D + i] = y[i] / total + double{matrix("alpha")[head * D + i]} * o;
      }
    }
    for (size_t kv = 0; kv < Hkv && t < frozen_from; ++kv) {
      Memory& memory = memories[kv];
      const Row gate = normalise(memory.w[0], memory.norm[0]), up = normalise(memory.w[1], memory.norm[1]);
      const Row down = normalise(memory.w[2], memory.norm[2]);
      const double* z = &k_tilde[kv * D];
      Row a(h, 0.0), u(h, 0.0), m(h), e(D);
      for (size_t j = 0; j < h; ++j) {
        for (size_t i = 0; i < D; ++i) a[j] += gate[j * D + i] * z[i];
        for (size_t i = 0; i < D; ++i) u[j] += up[j * D + i] * z[i];
        m[j] = a[j] * sigmoid(a[j]) * u[j];
      }
      const double eta = std::log1p(std::exp(eta_in[kv]));
      for (size_t i = 0; i < D; ++i) {
        double out = z[i] - v[kv * D + i];
        for (size_t j = 0; j < h; ++j) out += down[i * h + j] * m[j];
        e[i] = eta * out;
        for (size_t j = 0; j < h; ++j) memory.g[2][i * h + j] += e[i] * m[j];
      }
      for (size_t j = 0; j < h; ++j) {
        double dm = 0;
        for (size_t i = 0; i < D; ++i) dm += down[i * h + j] * e[i];
        const double sigma = sigmoid(a[j]);
        for (size_t i = 0; i < D; ++i) {
          memory.g[1][j * D + i] += dm * a[j] * sigma * z[i];
          memory.g[0][j * D + i] += dm * u[j] * sigma * (1 + a[j] * (1 - sigma)) * z[i];
        }
      }
      memory.beta_sum += sigmoid(beta_in[kv]);
      if ((t + 1) % at(config.chunk) != 0) continue;
      const Row* const hats[] = {&gate, &up, &down};
      for (size_t p = 0; p < 3; ++p) {
        for (size_t i = 0; i < h * D; ++i) {
          memory.s[p][i] =
              memory.beta_sum / static_cast<double>(config.chunk) * memory.s[p][i] + memory.g[p][i];
          memory.w[p][i] = (*hats[p])[i] - memory.s[p][i];
          memory.g[p][i] = 0;
        }
      }
      memory.beta_sum = 0;
    }
    const Row o = linear(mixed, "wo");
    for (size_t i = 0; i < C; ++i) x[i] += o[i];
    const Row n2 = rms(x, "norm2");
    Row g = linear(n2, "w_gate");
    const Row up = linear(n2, "w_up");
    for (size_t i = 0; i < g.size(); ++i) g[i] *= sigmoid(g[i]) * up[i];
    const Row d = linear(g, "w_down");
    for (size_t i = 0; i < C; ++i) x[i] += d[i];
    logits.push_back(linear(x, "embedding"));
  }
  return logits;
}

}  // namespace allmem::test
