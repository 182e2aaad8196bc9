// Operators against values computed by hand in the test, through the whole path: file, lowering, run.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <span>

#include "../onnx_builder.h"
#include "graph/lower.h"
#include "kernels/kernels.h"
#include "ops/registry.h"
#include "platform/aligned_buffer.h"
#include "platform/thread_pool.h"

using namespace allmem;
using namespace allmem::test;

namespace {

// h [T, 4]: row id of the table holds id*4 .. id*4+3. A case adds nodes that make `logits` [T, columns] from
// it.
OnnxBuilder base(int64_t columns) {
  OnnxBuilder b;
  b.defaults().input("input_ids", kInt64, {kT}).output("logits", kFloat, {kT, columns});
  std::vector<float> table(64);
  for (size_t i = 0; i < table.size(); ++i) table[i] = static_cast<float>(i);
  return b.floats("table", {16, 4}, table).node("Gather", {"table", "input_ids"}, {"h"});
}

std::vector<float> run(const OnnxBuilder& b, std::vector<int64_t> ids,
                       const Kernels& kernels = ref_kernels()) {
  const TempDir directory;
  const auto program =
      lower(onnx::read_model(directory.write("model.onnx", b.build())), find_op, kernels, Precision::kFast);
  std::vector<float> logits(ids.size() * static_cast<size_t>(program->vocab_size));
  AlignedBuffer arena(program->arena_bytes), scratch(program->scratch_floats * sizeof(float));
  ThreadPool pool(1);
  RunContext ctx{.kernels = kernels, .pool = pool, .program = *program};
  ctx.tokens = ids.size();
  ctx.operands = program->operands.data();
  ctx.homes[static_cast<size_t>(Home::kArena)] = arena.data();
  ctx.homes[static_cast<size_t>(Home::kIds)] = reinterpret_cast<std::byte*>(ids.data());
  ctx.homes[static_cast<size_t>(Home::kLogits)] = reinterpret_cast<std::byte*>(logits.data());
  ctx.scratch_data = reinterpret_cast<float*>(scratch.data());
  for (const Step& step : program->steps) {
    ctx.step = &step;
    step.op->run(ctx);
  }
  return logits;
}

using Values = std::vector<float>;

// How many tokens a draft may have for each to get the bits that it gets alone.
size_t most_speculative(const OnnxBuilder& b) {
  const TempDir directory;
  const auto program = lower(onnx::read_model(directory.write("model.onnx", b.build())), find_op,
                             ref_kernels(), Precision::kFast);
  ThreadPool pool(1);
  const RunContext ctx{.kernels = ref_kernels(), .pool = pool, .program = *program};
  size_t most = kMostSpeculative;
  for (const Step& step : program->steps) most = std::min(most, step.op->most_speculative(ctx));
  return most;
}

}  // namespace

TEST_CASE("elementwise operators broadcast as NumPy does") {
  const auto h = [](const std::string& op, const std::vector<int64_t>& dims, const Values& w,
                    bool left = false) {
    OnnxBuilder b = base(4);
    b.floats("w", dims, w);
    const std::vector<std::string> inputs =
        left ? std::vector<std::string>{"w", "h"} : std::vector<std::string>{"h", "w"};
    return run(b.node(op, inputs, {"logits"}), {0, 2});
  };
  CHECK(h("Add", {4}, {10, 20, 30, 40}) == Values{10, 21, 32, 43, 18, 29, 40, 51});
  CHECK(h("Sub", {}, {1}) == Values{-1, 0, 1, 2, 7, 8, 9, 10});
  CHECK(h("Sub", {1, 4}, {1, 1, 1, 1}, true) == Values{1, 0, -1, -2, -7, -8, -9, -10});
  CHECK(h("Mul", {1, 1}, {2}) == Values{0, 2, 4, 6, 16, 18, 20, 22});
  CHECK(h("Div", {4}, {1, 2, 4, 8}) == Values{0, 0.5f, 0.5f, 0.375f, 8, 4.5f, 2.5f, 1.375f});
  CHECK(h("Pow", {}, {2}) == Values{0, 1, 4, 9, 64, 81, 100, 121});
}

TEST_CASE("a value per token broadcasts over channels, and one per head over the channels of a head") {
  OnnxBuilder b = base(4);
  b.ints("heads", {-1, 2, 2}).ints("joined", {0, 4}).ints("last", {-1});
  b.node("Reshape", {"h", "heads"}, {"hh"}).node("ReduceSum", {"hh", "last"}, {"sum"});
  b.node("Div", {"hh", "sum"}, {"share"}).node("Reshape", {"share", "joined"}, {"logits"});
  CHECK(run(b, {1}) == Values{4 / 9.0f, 5 / 9.0f, 6 / 13.0f, 7 / 13.0f});
}

TEST_CASE("split, concat, slice, transpose, squeeze and unsqueeze move values") {
  OnnxBuilder b = base(4);
  b.ints("axis", {1}).ints("one", {1}).ints("three", {3}).ints("sizes", {1, 3});
  b.node("Split", {"h", "sizes"}, {"a", "rest"}, {Attr::i("axis", -1)});
  b.node("Concat", {"rest", "a"}, {"turned"}, {Attr::i("axis", 1)});                     // 1 2 3 0
  b.node("Slice", {"turned", "one", "three", "axis"}, {"middle"});                       // 2 3
  b.node("Unsqueeze", {"middle", "axis"}, {"u"}).node("Squeeze", {"u", "axis"}, {"m"});  // 2 3
  b.node("Transpose", {"m"}, {"mt"}, {Attr::ints("perm", {1, 0})});
  b.node("Transpose", {"mt"}, {"same"}, {Attr::ints("perm", {1, 0})});
  b.node("Concat", {"same", "m"}, {"joined"}, {Attr::i("axis", 1)});
  // The transposes mix tokens, so what follows runs for all rows; Neg is what the logits come from.
  b.node("Neg", {"joined"}, {"logits"});
  CHECK(run(b, {0, 1}) == Values{-2, -3, -2, -3, -6, -7, -6, -7});
}

TEST_CASE("constants are computed once at load: only what depends on tokens is left to run") {
  OnnxBuilder b = base(4);
  b.floats("w", {4, 4}, Values{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16});
  b.node("Transpose", {"w"}, {"wt"}).node("Identity", {"wt"}, {"alias"});
  b.node("Constant", {}, {"half"}, {Attr::f("value_float", 0.5f)}).node("Mul", {"alias", "half"}, {"scaled"});
  b.node("MatMul", {"h", "scaled"}, {"logits"});
  CHECK(run(b, {0}) == Values{10, 22, 34, 46});  // [0 1 2 3] times wᵀ / 2
  const TempDir directory;
  const auto program =
      lower(onnx::read_model(directory.write("m", b.build())), find_op, ref_kernels(), Precision::kFast);
  CHECK(program->steps.size() == 2);
}

TEST_CASE("loops with only row-wise steps between them run side by side") {
  OnnxBuilder b = base(4);
  const Values w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
  b.floats("v", {4, 4}, w).floats("w", {4, 4}, w);
  b.node("Gemm", {"h", "v"}, {"a"}, {Attr::i("transB", 1)});
  b.node("Neg", {"h"}, {"n"}).node("Relu", {"n"}, {"r"});
  b.node("Gemm", {"r", "w"}, {"c"}, {Attr::i("transB", 1)}).node("Add", {"a", "c"}, {"logits"});
  const TempDir directory;
  const auto program =
      lower(onnx::read_model(directory.write("m", b.build())), find_op, ref_kernels(), Precision::kFast);
  const auto with_loops =
      std::count_if(program->stages.begin(), program->stages.end(),
                    [&](const Stage& stage) { return program->steps[stage.begin].kind == "Gemm"; });
  CHECK(with_loops == 1);
  CHECK(run(b, {1}) == Values{60, 148, 236, 324});
}

TEST_CASE("quantised rows are gathered and multiplied from the same bytes") {
  const auto check = [](int64_t bits, bool half) {
    // Two rows of 16: code i and 15 - i; the zero point is 8 or 128, the scales 0.5 and 2.
    std::vector<uint8_t> packed;
    for (int row = 0; row < 2; ++row) {
      const auto code = [&](int i) { return static_cast<uint8_t>(row == 0 ? i : 15 - i); };
      for (int i = 0; i < 16; i += bits == 4 ? 2 : 1) {
        packed.push_back(bits == 8 ? code(i) : static_cast<uint8_t>(code(i) | code(i + 1) << 4));
      }
    }
    OnnxBuilder b;
    b.defaults().input("input_ids", kInt64, {kT}).output("logits", kFloat, {kT, 2});
    b.bytes("w", {2, 1, 2 * bits}, packed).ints("flat", {2, 2 * bits});
    if (half) {
      b.halves("scales", {2, 1}, {0x3800, 0x4000});
    } else {
      b.floats("scales", {2, 1}, {0.5f, 2.0f});
    }
    b.node("Reshape", {"w", "flat"}, {"rows"});
    b.node("GatherBlockQuantized", {"rows", "input_ids", "scales"}, {"x"},
           {Attr::i("bits", bits), Attr::i("block_size", 16), Attr::i("gather_axis", 0),
            Attr::i("quantize_axis", 1)},
           "com.microsoft");
    b.node("MatMulNBits", {"x", "w", "scales"}, {"logits"},
           {Attr::i("bits", bits), Attr::i("block_size", 16), Attr::i("K", 16), Attr::i("N", 2)},
           "com.microsoft");
    const float zero = bits == 4 ? 8 : 128;
    float own = 0, cross = 0;
    for (int i = 0; i < 16; ++i) {
      const float a = 0.5f * (static_cast<float>(i) - zero),
                  c = 2.0f * (15.0f - static_cast<float>(i) - zero);
      own += a * a;
      cross += a * c;
    }
    CHECK(run(b, {0}) == Values{own, cross});  // halves of small integers: exact in float32
  };
  for (const int64_t bits : {4, 8})
    for (const bool half : {false, true}) check(bits, half);
}

TEST_CASE("affine blocks: what they stand for, the same bits for any tokens together, and exactly, too") {
  constexpr int64_t kColumns = 192, kOut = 20, kTable = 20, kBlocks = kColumns / 32;
  std::mt19937 random(11);
  Values table(static_cast<size_t>(kTable * kColumns));
  for (size_t i = 0; i < table.size(); ++i)  // whole numbers, 127 the largest of each group: codes are exact
    table[i] = i % kQ8Group == 0 ? 127.0f : static_cast<float>(random() % 255) - 127;
  std::vector<uint8_t> packed(static_cast<size_t>(kOut * kColumns / 2));
  for (uint8_t& byte : packed) byte = static_cast<uint8_t>(random() % 256);
  // Scales of 1 and 2, zero points of 7.5 and -0.25: all sums are multiples of a quarter below 2^22.
  const auto scale = [](size_t block) { return block % 3 == 0 ? 2.0f : 1.0f; };
  const auto zero = [](size_t block) { return block % 2 == 0 ? 7.5f : -0.25f; };
  std::vector<uint16_t> scales, zeros;
  for (size_t block = 0; block < static_cast<size_t>(kOut * kBlocks); ++block) {
    scales.push_back(block % 3 == 0 ? 0x4000 : 0x3C00);
    zeros.push_back(block % 2 == 0 ? 0x4780 : 0xB400);
  }
  for (const bool with_bias : {false, true}) {
    OnnxBuilder b;
    b.defaults().input("input_ids", kInt64, {kT}).output("logits", kFloat, {kT, kOut});
    b.floats("table", {kTable, kColumns}, table).node("Gather", {"table", "input_ids"}, {"x"});
    b.bytes("codes", {kOut, kBlocks, 16}, packed);
    b.halves("scales", {kOut, kBlocks}, scales).halves("zeros", {kOut * kBlocks}, zeros);
    b.floats("bias", {kOut}, Values(kOut, 3));
    std::vector<std::string> inputs{"x", "codes", "scales", "zeros"};
    if (with_bias) inputs.insert(inputs.end(), {"", "bias"});
    b.node("MatMulNBits", inputs, {"logits"},
           {Attr::i("bits", 4), Attr::i("block_size", 32), Attr::i("K", kColumns), Attr::i("N", kOut)},
           "com.microsoft");
    const std::vector<int64_t> ids{3, 0, 5, 5, 1, 2, 4};
    Values want;
    for (const int64_t id : ids) {
      for (size_t n = 0; n < static_cast<size_t>(kOut); ++n) {
        float sum = with_bias ? 3 : 0;
        for (size_t k = 0; k < static_cast<size_t>(kColumns); ++k) {
          const size_t at = n * static_cast<size_t>(kColumns) + k;
          const int code = k % 2 == 0 ? packed[at / 2] & 15 : packed[at / 2] >> 4;
          sum += (static_cast<float>(code) - zero(at / 32)) * scale(at / 32) *
                 table[static_cast<size_t>(id * kColumns) + k];
        }
        want.push_back(sum);
      }
    }
    CHECK(run(b, ids) == want);
    for (size_t t = 0; t < ids.size(); ++t) {
      const auto begin = want.begin() + static_cast<std::ptrdiff_t>(t * static_cast<size_t>(kOut));
      CHECK(run(b, {ids[t]}) == Values(begin, begin + kOut));
    }
  }
}

TEST_CASE("a matrix for each head multiplies that head, whatever its equation's letters") {
  for (const char* equation : {"thk,hnk->thn", "abc, bdc -> abd"}) {
    OnnxBuilder b = base(6);
    b.ints("heads", {-1, 2, 2}).ints("joined", {-1, 6});
    b.floats("w", {2, 3, 2}, {1, 0, 0, 1, 1, 1, 2, 0, 0, 2, 1, -1});
    b.node("Reshape", {"h", "heads"}, {"hh"})
        .node("Einsum", {"hh", "w"}, {"y"}, {Attr::s("equation", equation)});
    b.node("Reshape", {"y", "joined"}, {"logits"});
    CHECK(run(b, {0, 2}) == Values{0, 1, 1, 4, 6, -1, 8, 9, 17, 20, 22, -1});
  }
}

namespace {

constexpr size_t kHeads = 2, kRows = 8;  // of each head's matrix
constexpr int64_t kIds = 16;

// logits [T, kHeads * kRows] from a table [kIds, kHeads * dim] of heads and matrices of 8 bits, whose values
// go into `matrices`. As there is a quantised layer, though of zeros, activations have 8 bits.
OnnxBuilder heads_in_8_bits(int64_t dim, int64_t block, Values& table, Values& matrices) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  constexpr int64_t heads = kHeads, rows = kRows, width = heads * rows;
  table.resize(static_cast<size_t>(kIds * heads * dim));
  for (float& x : table) x = normal(random);
  std::vector<uint8_t> codes(static_cast<size_t>(width * dim));
  Values scales;
  for (size_t i = 0; i < codes.size(); ++i) {
    if (i % static_cast<size_t>(block) == 0) scales.push_back(std::fabs(normal(random)));
    codes[i] = static_cast<uint8_t>(random() % 256);
    matrices.push_back((static_cast<float>(codes[i]) - 128) * scales.back());
  }
  OnnxBuilder b;
  b.defaults().input("input_ids", kInt64, {kT}).output("logits", kFloat, {kT, width});
  b.floats("table", {kIds, heads * dim}, table).bytes("codes", {heads, rows, dim}, codes);
  b.floats("scales", {heads, rows, dim / block}, scales);
  b.bytes("zeros", {heads, rows, dim / block}, std::vector<uint8_t>(scales.size(), 128));
  b.ints("heads", {-1, heads, dim}).ints("joined", {-1, width});
  b.node("Gather", {"table", "input_ids"}, {"h"}).node("Reshape", {"h", "heads"}, {"hh"});
  b.node("DequantizeLinear", {"codes", "scales", "zeros"}, {"w"},
         {Attr::i("axis", -1), Attr::i("block_size", block)});
  b.node("Einsum", {"hh", "w"}, {"y"}, {Attr::s("equation", "thk,hnk->thn")});
  b.node("Reshape", {"y", "joined"}, {"z"});
  b.bytes("nothing", {width, 1, kQ8Group}, std::vector<uint8_t>(kHeads * kRows * kQ8Group, 128));
  b.floats("ones", {width}, Values(kHeads * kRows, 1));
  b.floats("still", {1, kQ8Group}, Values(kQ8Group));
  b.node("MatMulNBits", {"still", "nothing", "ones"}, {"zero"},
         {Attr::i("bits", 8), Attr::i("block_size", kQ8Group), Attr::i("K", kQ8Group), Attr::i("N", width)},
         "com.microsoft");
  b.node("Add", {"z", "zero"}, {"logits"});
  return b;
}

}  // namespace

TEST_CASE(
    "matrices of heads in 8 bits: near the float32 product, and the same bits for any tokens together") {
  for (const auto& size : {std::pair{64, 64}, {128, 64}, {128, 128}, {32, 32}, {48, 16}}) {
    const int dim = size.first, block = size.second;
    CAPTURE(dim);
    CAPTURE(block);
    Values table, matrices;
    const OnnxBuilder b = heads_in_8_bits(dim, block, table, matrices);
    std::vector<int64_t> ids;
    for (int64_t i = 0; i < 50; ++i) ids.push_back(i * 7 % kIds);
    const Values all = run(b, ids);
    const auto D = static_cast<size_t>(dim);
    for (size_t i = 0; i < all.size(); ++i) {
      const size_t n = i % (kHeads * kRows), id = static_cast<size_t>(ids[i / (kHeads * kRows)]);
      const float* x = &table[(id * kHeads + n / kRows) * D];
      double sum = 0, rounding = 0;
      for (size_t k = 0; k < D; ++k) {
        const size_t group = k / kQ8Group * kQ8Group;
        float most = 0;
        for (size_t j = group; j < std::min(D, group + kQ8Group); ++j) most = std::max(most, std::fabs(x[j]));
        sum += double{x[k]} * double{matrices[n * D + k]};
        rounding += std::fabs(double{matrices[n * D + k]}) * double{most} / 254;  // half a step of x's codes
      }
      CHECK(std::fabs(double{all[i]} - sum) <= rounding * 1.001);
    }
    const bool in_8_bits = block % static_cast<int>(kQ8Group) == 0;
    CHECK(most_speculative(b) == (in_8_bits ? kMostSpeculative : 1));
    if (!in_8_bits) continue;  // in float32: the same up to rounding, so a draft could change the text
    for (const Kernels* table : available_kernels()) {
      CAPTURE(table->name);
      CHECK(run(b, ids, *table) == all);
      Values one_by_one;
      for (const int64_t id : ids)
        for (const float x : run(b, {id}, *table)) one_by_one.push_back(x);
      CHECK(one_by_one == all);
    }
  }
}

TEST_CASE("softmax, casts and elementwise functions are what their names say") {
  OnnxBuilder b = base(4);
  b.node("Softmax", {"h"}, {"s"}).node("Exp", {"h"}, {"e"});
  b.node("Cast", {"e"}, {"whole"}, {Attr::i("to", kInt32)})
      .node("Cast", {"whole"}, {"f"}, {Attr::i("to", kFloat)});
  b.node("Add", {"s", "f"}, {"logits"});
  const Values y = run(b, {0});
  double total = 0;
  for (int i = 0; i < 4; ++i) total += std::exp(i);
  for (int i = 0; i < 4; ++i) {
    // The sum of both, below 21, is rounded once; the softmax, below 1, in exp, a sum of four and a division.
    CHECK(std::fabs(double{y[static_cast<size_t>(i)]} - std::exp(i) / total - std::floor(std::exp(i))) <
          (21 + 10) * 0x1p-24);
  }
}
