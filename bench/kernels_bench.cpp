// Micro-benchmarks of the kernels that dominate, for every table this machine can run.
//
//   kernels_bench --benchmark_filter=avx2
//
// Sizes are those of a layer of a 0.6B model. "bytes_per_second" counts weights, keys and values or the
// memory's state, which bound one token; "flops" counts a multiply and an add as two, which bound a block of
// tokens. What is measured here is in the cache, unlike in a model; allmem-edge bench measures those.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <string>
#include <vector>

#include "kernels/attention_q8.h"
#include "kernels/kernels.h"
#include "kernels/memory_q8.h"

namespace {

using allmem::kAffineBlock;
using allmem::Kernels;
using allmem::kQ8Group;
using allmem::NBitsMatrix;
using allmem::Q8Rows;

constexpr size_t kRows = 3072, kCols = 1024;

std::vector<float> numbers(size_t n) {
  std::vector<float> out(n);
  for (size_t i = 0; i < n; ++i) out[i] = static_cast<float>(i * 37 % 101) / 101 - 0.5f;
  return out;
}

void set_rates(benchmark::State& state, double bytes, double flops) {
  using benchmark::Counter;
  state.counters["bytes_per_second"] = Counter(bytes, Counter::kIsIterationInvariantRate, Counter::kIs1024);
  state.counters["flops"] = Counter(flops, Counter::kIsIterationInvariantRate);
}

void linear_f32(benchmark::State& state, const Kernels* kernels, size_t T) {
  const auto x = numbers(T * kCols), w = numbers(kRows * kCols);
  std::vector<float> y(T * kRows);
  for (auto _ : state) {
    kernels->linear_f32(x.data(), w.data(), nullptr, y.data(), T, kCols, kRows, 0, kRows);
    benchmark::DoNotOptimize(y.data());
  }
  set_rates(state, 4.0 * kRows * kCols, 2.0 * static_cast<double>(T) * kRows * kCols);
}

// Weights with scales as the exporter writes them: float16 for 4 bits, float32 for 8.
struct Weights {
  size_t block;
  unsigned bits;
  std::vector<uint8_t> packed = std::vector<uint8_t>(kRows * kCols * bits / 8, 0x5A);
  std::vector<float> scales = numbers(bits == 8 ? kRows * kCols / block : 0);
  std::vector<uint16_t> half_scales = std::vector<uint16_t>(bits == 4 ? kRows * kCols / block : 0, 0x2E66);

  NBitsMatrix matrix() const {
    NBitsMatrix w{packed.data(), nullptr, nullptr, kRows, kCols, block, bits};
    if (bits == 4) {
      w.half_scales = half_scales.data();
    } else {
      w.scales = scales.data();
    }
    return w;
  }
  double bytes() const {
    return static_cast<double>(packed.size() + 4 * scales.size() + 2 * half_scales.size());
  }
};

void linear_nbits(benchmark::State& state, const Kernels* kernels, size_t T, unsigned bits) {
  const auto x = numbers(T * kCols);
  const Weights w{32, bits};
  std::vector<float> y(T * kRows);
  for (auto _ : state) {
    kernels->linear_nbits(x.data(), w.matrix(), nullptr, y.data(), T, 0, kRows);
    benchmark::DoNotOptimize(y.data());
  }
  set_rates(state, w.bytes(), 2.0 * static_cast<double>(T) * kRows * kCols);
}

// Rows of activations in 8 bits, with room of their own.
struct Activations {
  std::vector<int8_t> codes;
  std::vector<float> scales;
  std::vector<int32_t> sums;
  explicit Activations(size_t T)
      : codes(T * kCols), scales(T * kCols / kQ8Group), sums(T * kCols / kQ8Group) {}
  Q8Rows rows() { return {codes.data(), scales.data(), sums.data()}; }
};

void quantise(benchmark::State& state, const Kernels* kernels, size_t T) {
  const auto x = numbers(T * kCols);
  Activations q(T);
  for (auto _ : state) {
    kernels->quantise(x.data(), T, kCols, 4, q.rows());
    benchmark::DoNotOptimize(q.codes.data());
  }
  set_rates(state, 4.0 * static_cast<double>(x.size()), 0);
}

void linear_q8(benchmark::State& state, const Kernels* kernels, size_t T, unsigned bits) {
  const auto x = numbers(T * kCols);
  const Weights w{kQ8Group, bits};
  Activations q(T);
  kernels->quantise(x.data(), T, kCols, bits, q.rows());
  std::vector<float> y(T * kRows);
  for (auto _ : state) {
    kernels->linear_q8(q.rows(), w.matrix(), {}, y.data(), T, 0, kRows);
    benchmark::DoNotOptimize(y.data());
  }
  set_rates(state, w.bytes(), 2.0 * static_cast<double>(T) * kRows * kCols);
}

void linear_affine(benchmark::State& state, const Kernels* kernels, size_t T) {
  const auto x = numbers(T * kCols);
  const Weights w{kAffineBlock, 4};
  NBitsMatrix matrix = w.matrix();
  matrix.half_zeros = w.half_scales.data();
  Activations q(T);
  kernels->quantise(x.data(), T, kCols, 4, q.rows());
  std::vector<int32_t> sums(T * kCols / kAffineBlock);
  allmem::affine_sums(q.codes.data(), T, kCols, sums.data());
  std::vector<float> y(T * kRows);
  for (auto _ : state) {
    kernels->linear_affine({q.codes.data(), q.scales.data(), sums.data()}, matrix, nullptr, y.data(), T, 0,
                           kRows);
    benchmark::DoNotOptimize(y.data());
  }
  const double bytes = w.bytes() + 2.0 * static_cast<double>(w.half_scales.size());
  set_rates(state, bytes, 2.0 * static_cast<double>(T) * kRows * kCols);
}

constexpr size_t kHeads = 16, kKvHeads = 8, kDim = 128, kWindow = 1024, kSinks = 64;
constexpr uint64_t kPosition = 100000;

double attention_flops(size_t T) { return 4.0 * static_cast<double>(T * kHeads * kDim * (kWindow + kSinks)); }

void attention(benchmark::State& state, const Kernels* kernels, size_t T) {
  const auto q = numbers(T * kHeads * kDim), k = numbers(T * kKvHeads * kDim),
             ring = numbers(kKvHeads * (kSinks + kWindow) * kDim);
  std::vector<float> y(q.size());
  const allmem::AttentionArgs args{T,        kHeads,      kKvHeads,    kDim,     kWindow,
                                   kSinks,   kPosition,   q.data(),    q.data(), k.data(),
                                   k.data(), ring.data(), ring.data(), 0.1f,     y.data()};
  std::vector<float> scratch(kernels->attention_scratch(args));
  for (auto _ : state) {
    kernels->attention(args, 0, kKvHeads, scratch.data());
    benchmark::DoNotOptimize(y.data());
  }
  set_rates(state, 8.0 * static_cast<double>(ring.size()), attention_flops(T));
}

// With keys and values in 8 bits, this block's stored first.
void attention_q8(benchmark::State& state, const Kernels* kernels, size_t T) {
  const allmem::KvRing ring{
      .kv_heads = kKvHeads, .dim = kDim, .window = kWindow, .sinks = kSinks, .block = 128};
  const auto q = numbers(T * kHeads * kDim), k = numbers(T * kKvHeads * kDim);
  std::vector<std::byte> keys(ring.key_bytes()), values(ring.value_bytes());
  std::vector<float> y(q.size()), scratch(allmem::attention_q8_scratch(ring, kHeads, T));
  const allmem::KvBytes bytes{keys.data(), values.data()};
  const allmem::AttentionQ8Args args{.ring = ring,
                                     .bytes = bytes,
                                     .tokens = T,
                                     .heads = kHeads,
                                     .position = kPosition,
                                     .q = q.data(),
                                     .q_sink = q.data(),
                                     .scale = 0.1f,
                                     .y = y.data()};
  for (auto _ : state) {
    allmem::store_kv(*kernels, ring, k.data(), k.data(), T, kPosition, bytes, 0, kKvHeads, scratch.data());
    allmem::attention_q8(*kernels, args, 0, kKvHeads, scratch.data());
    benchmark::DoNotOptimize(y.data());
  }
  const size_t slots = kSinks + kWindow;
  set_rates(state, static_cast<double>((keys.size() + values.size()) / ring.slots() * slots),
            attention_flops(T));
}

constexpr size_t kHidden = 256;

// The memory of one KV head: W, momentum, gradient, each of three matrices.
struct Memory {
  std::vector<float> state = numbers(9 * kDim * kHidden), scales = numbers(2 * kHidden + kDim);
  std::vector<float> norms = numbers(2 * kHidden + kDim);

  Memory() { std::fill(state.begin() + 6 * kDim * kHidden, state.end(), 0.0f); }
  allmem::MemoryHead head() {
    const auto at = [&](size_t i) { return state.data() + i * kDim * kHidden; };
    return {kDim,
            kHidden,
            at(0),
            at(1),
            at(2),
            at(3),
            at(4),
            at(5),
            at(6),
            at(7),
            at(8),
            scales.data(),
            scales.data() + kHidden,
            scales.data() + 2 * kHidden};
  }
};
constexpr double kMatrices = 3.0 * kDim * kHidden;

void memory_read(benchmark::State& state, const Kernels* kernels, size_t n) {
  Memory memory;
  const auto q = numbers(n * kDim);
  std::vector<float> y(n * kDim), scratch(kernels->memory_scratch(kDim, kHidden));
  for (auto _ : state) {
    kernels->memory_read(memory.head(), q.data(), kDim, y.data(), kDim, n, scratch.data());
    benchmark::DoNotOptimize(y.data());
  }
  set_rates(state, 4 * kMatrices, 2 * kMatrices * static_cast<double>(n));
}

// From the 8-bit copy.
void memory_read_q8(benchmark::State& state, const Kernels* kernels, size_t n) {
  Memory memory;
  const auto q = numbers(n * kDim);
  std::vector<std::byte> bytes(allmem::MemoryQ8::bytes(kDim, kHidden));
  std::vector<float> y(n * kDim), scratch(allmem::MemoryQ8::scratch_floats(kDim, kHidden, n, 1));
  const allmem::MemoryQ8 copy(kDim, kHidden, bytes.data());
  copy.remake(*kernels, memory.head(), scratch.data());
  for (auto _ : state) {
    copy.read(*kernels, q.data(), y.data(), n, 1, kDim, scratch.data());
    benchmark::DoNotOptimize(y.data());
  }
  set_rates(state, static_cast<double>(bytes.size()), 2 * kMatrices * static_cast<double>(n));
}

void memory_accumulate(benchmark::State& state, const Kernels* kernels, size_t n) {
  Memory memory;
  const auto k = numbers(n * kDim), eta = numbers(n);
  std::vector<float> scratch(kernels->memory_scratch(kDim, kHidden));
  for (auto _ : state) {
    kernels->memory_accumulate(memory.head(), k.data(), kDim, k.data(), kDim, eta.data(), 1, n,
                               scratch.data());
    benchmark::ClobberMemory();
  }
  set_rates(state, 3 * 4 * kMatrices, 14.0 / 3 * kMatrices * static_cast<double>(n));
}

// The end of a chunk: the update, the norms of the new rows, and the copy of them in 8 bits.
void memory_write(benchmark::State& state, const Kernels* kernels) {
  Memory memory;
  std::vector<std::byte> bytes(allmem::MemoryQ8::bytes(kDim, kHidden));
  std::vector<float> scratch(allmem::MemoryQ8::scratch_floats(kDim, kHidden, 1, 1));
  const allmem::MemoryQ8 copy(kDim, kHidden, bytes.data());
  const float* norms = memory.norms.data();
  for (auto _ : state) {
    kernels->memory_write(memory.head(), 0.5f);
    kernels->memory_row_scales(memory.head(), norms, norms + kHidden, norms + 2 * kHidden);
    copy.remake(*kernels, memory.head(), scratch.data());
    benchmark::ClobberMemory();
  }
  set_rates(state, 7 * 4 * kMatrices, 6 * kMatrices);
}

void silu_mul(benchmark::State& state, const Kernels* kernels) {
  const auto a = numbers(kRows), b = numbers(kRows);
  std::vector<float> y(kRows);
  for (auto _ : state) {
    kernels->silu_mul(a.data(), b.data(), y.data(), kRows);
    benchmark::DoNotOptimize(y.data());
  }
  set_rates(state, 12.0 * kRows, 0);
}

}  // namespace

int main(int argc, char** argv) {
  for (const Kernels* k : allmem::available_kernels()) {
    const auto add = [&](const std::string& name, auto... call) {
      benchmark::RegisterBenchmark((std::string(k->name) + "/" + name).c_str(), call...);
    };
    for (const size_t T : {1, 4, 32, 128}) {
      const std::string tokens = "/tokens:" + std::to_string(T);
      add("linear_f32" + tokens, linear_f32, k, T);
      add("linear_8bit" + tokens, linear_nbits, k, T, 8u);
      add("linear_4bit" + tokens, linear_nbits, k, T, 4u);
      add("quantise" + tokens, quantise, k, T);
      add("linear_q8_8bit" + tokens, linear_q8, k, T, 8u);
      add("linear_q8_4bit" + tokens, linear_q8, k, T, 4u);
      add("linear_affine" + tokens, linear_affine, k, T);
      add("attention" + tokens, attention, k, T);
      add("attention_q8" + tokens, attention_q8, k, T);
      add("memory_read" + tokens, memory_read, k, T);
      add("memory_read_q8" + tokens, memory_read_q8, k, T);
      add("memory_accumulate" + tokens, memory_accumulate, k, T);
    }
    add("memory_write", memory_write, k);
    add("silu_mul", silu_mul, k);
  }
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
