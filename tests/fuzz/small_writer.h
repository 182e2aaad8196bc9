// What fuzz_snapshot loads snapshots into, and what fuzz_seeds saves them from.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "../cpp/tiny_model.h"
#include "runtime/model.h"
#include "runtime/writer.h"
#include "tokenizer/tokenizer.h"

namespace allmem::fuzz {

inline Writer small_writer() {
  static const std::string onnx = test::TinyModel().builder().build();
  std::vector<std::unique_ptr<MappedFile>> pieces;
  pieces.push_back(std::make_unique<MappedFile>("model.onnx", std::as_bytes(std::span(onnx))));
  return Writer(std::make_unique<Session>(Model::load(std::move(pieces)), SessionOptions{.threads = 1}));
}

inline std::shared_ptr<const Tokenizer> small_tokenizer() {
  static const auto tokenizer = Tokenizer::from_json(
      R"({"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false},"decoder":{"type":"ByteLevel"},
"model":{"vocab":{"a":0,"b":1,"c":2,"Ã":3,"©":4},"merges":[]}})",
      "tokenizer.json");
  return tokenizer;
}

}  // namespace allmem::fuzz
