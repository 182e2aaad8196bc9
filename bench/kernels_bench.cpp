// Micro-benchmarks of the kernels that dominate, for every table this machine can run.
//
//   kernels_bench --benchmark_filter=avx2
//
// Weights are sized like a layer of a 0.6B model. "bytes_per_second" counts weights or keys and values, which
// bound one token; "flops" counts a multiply and an add as two, which bound a block of tokens.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <string>
#include <vector>

#include "kernels/kernels.h"

namespace {

using allmem::Kernels;

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

void linear_nbits(benchmark::State& state, const Kernels* kernels, size_t T, unsigned bits) {
  const auto x = numbers(T * kCols), scales = numbers(kRows * kCols / 32);
  const std::vector<uint8_t> packed(kRows * kCols * bits / 8, 0x5A);
  const allmem::NBitsMatrix w{packed.data(), scales.data(), nullptr, kRows, kCols, 32, bits};
  std::vector<float> y(T * kRows);
  for (auto _ : state) {
    kernels->linear_nbits(x.data(), w, nullptr, y.data(), T, 0, kRows);
    benchmark::DoNotOptimize(y.data());
  }
  set_rates(state, static_cast<double>(packed.size() + 4 * scales.size()),
            2.0 * static_cast<double>(T) * kRows * kCols);
}

void attention(benchmark::State& state, const Kernels* kernels, size_t T) {
  const size_t heads = 16, kv_heads = 8, D = 128, window = 1024, sinks = 64;
  const auto q = numbers(T * heads * D), k = numbers(T * kv_heads * D),
             ring = numbers(kv_heads * (sinks + window) * D);
  std::vector<float> y(q.size());
  const allmem::AttentionArgs args{T,        heads,       kv_heads,    D,        window,
                                   sinks,    100000,      q.data(),    q.data(), k.data(),
                                   k.data(), ring.data(), ring.data(), 0.1f,     y.data()};
  std::vector<float> scratch(kernels->attention_scratch(args));
  for (auto _ : state) {
    kernels->attention(args, 0, kv_heads, scratch.data());
    benchmark::DoNotOptimize(y.data());
  }
  set_rates(state, 8.0 * static_cast<double>(ring.size()),
            4.0 * static_cast<double>(T * heads * D * (window + sinks)));
}

void memory(benchmark::State& state, const Kernels* kernels, size_t n, bool accumulate) {
  const size_t D = 128, h = 256;
  auto weights = numbers(9 * D * h), scales = numbers(2 * h + D);
  std::fill(weights.begin() + 6 * D * h, weights.end(), 0.0f);
  const auto at = [&](size_t i) { return weights.data() + i * D * h; };
  const allmem::MemoryHead head{D,
                                h,
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
                                scales.data() + h,
                                scales.data() + 2 * h};
  const auto k = numbers(n * D), eta = numbers(n);
  std::vector<float> y(n * D), scratch(kernels->memory_scratch(D, h));
  for (auto _ : state) {
    if (accumulate) {
      kernels->memory_accumulate(head, k.data(), D, k.data(), D, eta.data(), 1, n, scratch.data());
    } else {
      kernels->memory_read(head, k.data(), D, y.data(), D, n, scratch.data());
    }
    benchmark::ClobberMemory();
  }
  set_rates(state, (accumulate ? 9.0 : 3.0) * 4 * D * h,
            (accumulate ? 14.0 : 6.0) * static_cast<double>(n * D * h));
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
  const Kernels* tables[8];
  const size_t count = allmem::available_kernels(tables, 8);
  for (size_t i = 0; i < count; ++i) {
    const Kernels* k = tables[i];
    const auto add = [&](const std::string& name, auto... call) {
      benchmark::RegisterBenchmark((std::string(k->name) + "/" + name).c_str(), call...);
    };
    for (const size_t T : {1, 4, 32}) {
      const std::string tokens = "/tokens:" + std::to_string(T);
      add("linear_f32" + tokens, linear_f32, k, T);
      add("linear_8bit" + tokens, linear_nbits, k, T, 8u);
      add("linear_4bit" + tokens, linear_nbits, k, T, 4u);
      add("attention" + tokens, attention, k, T);
      add("memory_read" + tokens, memory, k, T, false);
      add("memory_accumulate" + tokens, memory, k, T, true);
    }
    add("silu_mul", silu_mul, k);
  }
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
