// `fuzz_seeds DIRECTORY` writes seeds into DIRECTORY/model, small models that between them use every
// operator, and into DIRECTORY/snapshot, what this build saves: a committed snapshot would grow stale with
// the format.
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "../cpp/linear_model.h"
#include "../cpp/tiny_model.h"
#include "runtime/snapshot.h"
#include "small_writer.h"

using namespace allmem;
using namespace allmem::test;

namespace {

OnnxBuilder with_logits(int64_t vocab) {
  return OnnxBuilder().defaults().input("input_ids", kInt64, {kT}).output("logits", kFloat, {kT, vocab});
}

std::string quantised() {
  OnnxBuilder b = with_logits(4);
  const auto attributes = [](int64_t bits, int64_t block, int64_t K, int64_t N) {
    return std::vector{Attr::i("bits", bits), Attr::i("block_size", block), Attr::i("K", K), Attr::i("N", N)};
  };
  const auto weight = [&](const std::string& name, int64_t bits, int64_t block, int64_t K, int64_t N) {
    const auto scales = static_cast<size_t>(N * K / block);
    std::vector<uint8_t> codes;
    for (int64_t i = 0; i < N * K * bits / 8; ++i) codes.push_back(static_cast<uint8_t>(37 * i + 11));
    b.bytes(name, {N, K / block, block * bits / 8}, codes);
    if (bits == 4) {
      b.halves(name + ".scales", {N, K / block}, std::vector<uint16_t>(scales, 0x2E66));
    } else {
      b.floats(name + ".scales", {N, K / block}, std::vector<float>(scales, 0.1f));
    }
  };
  weight("embedding", 8, 64, 64, 4);
  weight("square", 4, 64, 64, 64);
  weight("zeros", 4, 16, 64, 16);
  weight("eight", 8, 16, 16, 64);
  b.bytes("points", {16, 2}, std::vector<uint8_t>(32, 0x79)).ints("rows", {4, 64});
  b.floats("bias", {64}, std::vector<float>(64, 0.5f)).node("Reshape", {"embedding", "rows"}, {"table"});
  b.node(
      "GatherBlockQuantized", {"table", "input_ids", "embedding.scales"}, {"x"},
      {Attr::i("bits", 8), Attr::i("block_size", 64), Attr::i("gather_axis", 0), Attr::i("quantize_axis", 1)},
      "com.microsoft");
  const auto multiply = [&](const std::vector<std::string>& inputs, const std::string& y,
                            const std::vector<Attr>& a) {
    b.node("MatMulNBits", inputs, {y}, a, "com.microsoft");
  };
  multiply({"x", "square", "square.scales", "", "", "bias"}, "a", attributes(4, 64, 64, 64));
  multiply({"x", "square", "square.scales"}, "shared", attributes(4, 64, 64, 64));
  b.node("Add", {"a", "shared"}, {"b"});
  multiply({"b", "zeros", "zeros.scales", "points"}, "c", attributes(4, 16, 64, 16));
  multiply({"c", "eight", "eight.scales"}, "d", attributes(8, 16, 16, 64));
  multiply({"d", "embedding", "embedding.scales"}, "logits", attributes(8, 64, 64, 4));
  return b.build();
}

std::string every_operator() {
  OnnxBuilder b = with_logits(4);
  b.floats("table", {4, 4}, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6})
      .floats("ones", {4}, {1, 1, 1, 1});
  b.ints("axis", {1}).ints("zero", {0}).ints("three", {3}).ints("sizes", {1, 3}).ints("heads", {-1, 2, 2});
  b.ints("joined", {0, 4}).ints("last", {-1});
  b.node("Gather", {"table", "input_ids"}, {"h"}).node("RMSNormalization", {"h", "ones"}, {"n"});
  b.node("Split", {"n", "sizes"}, {"s1", "s3"}, {Attr::i("axis", 1)});
  b.node("Slice", {"n", "zero", "three", "axis"}, {"sliced"}).node("Mul", {"s3", "sliced"}, {"m"});
  b.node("Concat", {"m", "s1"}, {"c"}, {Attr::i("axis", 1)}).node("Softmax", {"c"}, {"soft"});
  b.node("Constant", {}, {"half"}, {Attr::f("value_float", 0.5f)}).node("Pow", {"soft", "half"}, {"p"});
  b.node("Transpose", {"table"}, {"turned"}, {Attr::ints("perm", {1, 0})})
      .node("MatMul", {"p", "turned"}, {"q"});
  b.node("Reshape", {"q", "heads"}, {"r"}).node("ReduceSum", {"r", "last"}, {"sum"});
  b.node("ReduceMean", {"r", "last"}, {"mean"})
      .node("Div", {"r", "sum"}, {"d"})
      .node("Sub", {"d", "mean"}, {"e"});
  b.node("Reshape", {"e", "joined"}, {"f"}).node("Unsqueeze", {"f", "axis"}, {"u"});
  b.node("Squeeze", {"u", "axis"}, {"v"}).node("Cast", {"v"}, {"w"}, {Attr::i("to", kInt32)});
  b.node("Cast", {"w"}, {"whole"}, {Attr::i("to", kFloat)}).node("Identity", {"whole"}, {"last_0"});
  const char* const unary[] = {"Exp",      "Neg",  "Reciprocal", "Relu", "Sigmoid",
                               "Softplus", "Sqrt", "Swish",      "Tanh"};
  int i = 0;
  for (const char* op : unary) {
    b.node(op, {"last_" + std::to_string(i)}, {"last_" + std::to_string(i + 1)});
    ++i;
  }
  b.node("Gemm", {"last_9", "table"}, {"logits"}, {Attr::i("transB", 1)});
  return b.build();
}

std::string saved(const Writer& writer) {
  const std::string note = "note";
  std::string snapshot(snapshot_size(writer, note), '\0');
  save_snapshot(writer, note, std::as_writable_bytes(std::span(snapshot)));
  return snapshot;
}

// The same as format 3 had it: the state as it lies in memory. Its checksum is wrong, which fuzzers do not
// look at.
std::string saved_whole(const Writer& writer) {
  std::string snapshot = saved(writer);
  const auto state = writer.session().state_memory();
  uint64_t packed = 0;
  const uint64_t whole = state.size();
  const uint32_t format = 3;
  std::memcpy(&packed, snapshot.data() + 56, sizeof packed);
  std::memcpy(snapshot.data() + 8, &format, sizeof format);
  std::memcpy(snapshot.data() + 56, &whole, sizeof whole);
  snapshot.resize(snapshot.size() - packed);
  return snapshot.append(reinterpret_cast<const char*>(state.data()), state.size());
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const std::filesystem::path directory = argv[1];
  const auto write = [&](const char* target, const char* name, const std::string& bytes) {
    std::filesystem::create_directories(directory / target);
    std::ofstream(directory / target / name, std::ios::binary) << bytes;
  };
  TinyConfig small{.vocab = 4,
                   .width = 8,
                   .heads = 2,
                   .kv_heads = 1,
                   .dim = 4,
                   .window = 3,
                   .sinks = 1,
                   .hidden = 2,
                   .chunk = 2};
  write("model", "tiny", TinyModel(small).builder().build());
  LinearModel linear{.vocab = 4, .heads = 2, .kv_heads = 1, .dim = 4, .state = {1, 4, 4}};
  write("model", "linear", linear.filled().builder().build());
  write("model", "quantised", quantised());
  write("model", "every_operator", every_operator());

  Writer writer = fuzz::small_writer();
  const std::vector<int32_t> ids = {0, 1, 2, 3, 4, 3, 2, 1};
  std::vector<float> logits(ids.size() * static_cast<size_t>(writer.session().model().info().vocab_size));
  writer.read(ids, LogitsFor::kAll, logits);
  writer.sample(fuzz::small_tokenizer().get());
  write("snapshot", "read", saved(writer));
  write("snapshot", "whole", saved_whole(writer));
  writer.session().freeze(true);
  write("snapshot", "frozen", saved(writer));
  writer.session().freeze(false);
  const GenerateOptions options{.max_tokens = 9, .stop = {"ab", "cé"}, .stop_ids = {2}};
  writer.start(fuzz::small_tokenizer(), ids, options);
  write("snapshot", "begun", saved(writer));
  writer.prefill();
  writer.next();
  write("snapshot", "unfinished", saved(writer));
}
