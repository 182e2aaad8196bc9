// Small models and random tokens, for the tests of sessions.
#pragma once

#include <random>
#include <vector>

#include "../linear_model.h"
#include "../temp_dir.h"
#include "../tiny_model.h"

namespace allmem::test {

// Of a TinyModel or a LinearModel.
template <class Given>
std::shared_ptr<const Model> load(const Given& given, const Choices& choices = {}) {
  const TempDir directory;
  directory.write("model.onnx", given.builder().build());
  return Model::load(directory.path(), choices);
}

// Every linear layer has rows of whole blocks, so that 8-bit arithmetic is used throughout; `bits` 0:
// float32.
inline TinyConfig quantised(unsigned bits) {
  return {.vocab = 50,
          .width = 64,
          .heads = 2,
          .kv_heads = 1,
          .dim = 32,
          .window = 9,
          .sinks = 2,
          .hidden = 16,
          .chunk = 6,
          .bits = bits};
}

inline std::vector<int32_t> random_ids(size_t count, int64_t vocab, unsigned seed = 7) {
  std::mt19937 random(seed);
  std::uniform_int_distribution<int32_t> id(0, static_cast<int32_t>(vocab - 1));
  std::vector<int32_t> ids(count);
  for (int32_t& value : ids) value = id(random);
  return ids;
}

}  // namespace allmem::test
