// Measures the machine with the session's own threads and kernels.
#include "runtime/machine_speed.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "kernels/kernels.h"
#include "platform/aligned_buffer.h"
#include "platform/error.h"
#include "platform/thread_pool.h"

namespace allmem {

namespace {

constexpr double kSeconds = 0.3;                               // that each measurement takes
constexpr size_t kReadTokens = 128, kRows = 256, kCols = 512;  // of a product in 8 bits: 128 KiB

// Amounts per second of `run`, which does `amount` of something: the best of the tries that fit into
// kSeconds.
template <class Run>
double best_rate(double amount, Run run) {
  using Clock = std::chrono::steady_clock;
  const auto seconds = [](Clock::duration time) { return std::chrono::duration<double>(time).count(); };
  double best = 0;
  run();  // pages and caches
  for (const auto start = Clock::now(); seconds(Clock::now() - start) < kSeconds || best == 0;) {
    const auto begin = Clock::now();
    run();
    best = std::max(best, amount / std::max(1e-9, seconds(Clock::now() - begin)));
  }
  return best;
}

double read_rate(ThreadPool& pool, size_t bytes) {
  constexpr size_t kLine = kAlignment / sizeof(uint64_t);
  constexpr size_t kAhead = 2048 / sizeof(uint64_t);  // fetched ahead, as the kernels do
  const size_t words = std::max(bytes / kAlignment, size_t{1}) * kLine;
  AlignedBuffer buffer(words * sizeof(uint64_t));
  auto* memory = reinterpret_cast<uint64_t*>(buffer.data());
  std::fill_n(memory, words, 1);  // pages of zeros that nobody wrote may all be the same one
  std::atomic<uint64_t> sum{0};
  return best_rate(static_cast<double>(words * sizeof(uint64_t)), [&] {
    pool.parallel(words, kLine, [&](size_t begin, size_t end, size_t) {
      uint64_t parts[kLine] = {};
      for (size_t i = begin; i < end; i += kLine) {
        __builtin_prefetch(memory + std::min(i + kAhead, words - 1));
        for (size_t j = 0; j < kLine; ++j) parts[j] += memory[i + j];
      }
      for (const uint64_t part : parts) sum += part;  // used, so that nothing of it is left out
    });
  });
}

// A matrix, in 4 bits with float16 scales or in float32, and activations for one thread.
struct Product {
  AlignedBuffer weights{kRows * kCols * sizeof(float)}, scales{kRows * kCols / kQ8Group * sizeof(uint16_t)};
  AlignedBuffer x{kReadTokens * kCols * sizeof(float)},
      x_scales{kReadTokens * kCols / kQ8Group * sizeof(float)};
  AlignedBuffer sums{kReadTokens * kCols / kQ8Group * sizeof(int32_t)},
      y{kReadTokens * kRows * sizeof(float)};

  void integer(const Kernels& kernels) {
    const Q8Rows rows{reinterpret_cast<int8_t*>(x.data()), floats(x_scales),
                      reinterpret_cast<int32_t*>(sums.data())};
    const NBitsMatrix w{.packed = reinterpret_cast<const uint8_t*>(weights.data()),
                        .scales = nullptr,
                        .zero_points = nullptr,
                        .rows = kRows,
                        .cols = kCols,
                        .block = kQ8Group,
                        .bits = 4,
                        .half_scales = reinterpret_cast<const uint16_t*>(scales.data())};
    kernels.linear_q8(rows, w, {}, floats(y), kReadTokens, 0, kRows);
  }
  void floating(const Kernels& kernels) {  // a quarter of the numbers, so that they take no more room
    kernels.linear_f32(floats(x), floats(weights), nullptr, floats(y), kReadTokens, kCols / 2, kRows / 2, 0,
                       kRows / 2);
  }
  static float* floats(AlignedBuffer& buffer) { return reinterpret_cast<float*>(buffer.data()); }
};

// A memory and tokens that it learns, for one thread.
struct Learning {
  static constexpr size_t kDim = 128, kHidden = 256, kSize = kDim * kHidden;
  static constexpr double kProducts =
      7.0 * kSize * kReadTokens;  // three forward, one back, three for the gradient
  AlignedBuffer weights{6 * kSize * sizeof(float)}, row_scales{(2 * kHidden + kDim) * sizeof(float)};
  AlignedBuffer tokens{kReadTokens * kDim * sizeof(float)}, rates{kReadTokens * sizeof(float)};
  AlignedBuffer scratch{best_kernels().memory_scratch(kDim, kHidden) * sizeof(float)};

  void learn(const Kernels& kernels) {
    const auto floats = [](AlignedBuffer& buffer) { return reinterpret_cast<float*>(buffer.data()); };
    float *w = floats(weights), *g = w + 3 * kSize, *r = floats(row_scales);
    const MemoryHead head{kDim,        kHidden,        w, w + kSize, w + 2 * kSize, nullptr,
                          nullptr,     nullptr,        g, g + kSize, g + 2 * kSize, r,
                          r + kHidden, r + 2 * kHidden};
    kernels.memory_accumulate_fast(head, floats(tokens), kDim, floats(tokens), kDim, floats(rates), 1,
                                   kReadTokens, floats(scratch));
  }
};

// `products`: multiply-adds of one call.
template <class Work>
double product_rate(ThreadPool& pool, double products, void (Work::*multiply)(const Kernels&)) {
  constexpr size_t kTimes = 20;  // so that the threads start and meet seldom
  const auto threads = static_cast<size_t>(pool.threads());
  const std::unique_ptr<Work[]> own(new Work[threads]);
  const double operations = 2 * products * kTimes * static_cast<double>(threads);
  const Kernels& kernels = best_kernels();
  return best_rate(operations, [&] {
    pool.parallel(threads, 1, [&](size_t begin, size_t end, size_t) {
      for (size_t i = begin; i < end; ++i)
        for (size_t time = 0; time < kTimes; ++time) (own[i].*multiply)(kernels);
    });
  });
}

}  // namespace

MachineSpeed measure_machine(int threads, size_t bytes, bool exact) {
  if (threads < 1 || threads > ThreadPool::kMaxThreads) {
    throw Error(ErrorCode::kInvalidArgument, "The machine is measured with 1 to " +
                                                 std::to_string(ThreadPool::kMaxThreads) + " threads, not " +
                                                 std::to_string(threads) + ".");
  }
  constexpr double kProducts = 1.0 * kReadTokens * kRows * kCols;
  ThreadPool pool(threads);
  return {.read_bytes = read_rate(pool, bytes),
          .integer_operations = product_rate(pool, kProducts, &Product::integer),
          .floating_operations = exact ? product_rate(pool, kProducts / 4, &Product::floating)
                                       : product_rate(pool, Learning::kProducts, &Learning::learn)};
}

}  // namespace allmem
