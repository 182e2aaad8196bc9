// What the tests of texts share.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/snapshot.h"
#include "runtime/writer.h"

namespace allmem::test {

enum Letter : int32_t { kA, kB, kC, kLead, kTail, kEnd, kVocab };  // kLead kTail: the two bytes of é

// The tokenizer of these six.
inline std::shared_ptr<const Tokenizer> letters() {
  return Tokenizer::from_json(
      R"({"added_tokens":[{"id":5,"content":"<end>","single_word":false,"lstrip":false,
"rstrip":false,"normalized":false,"special":true}],"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false},
"decoder":{"type":"ByteLevel"},"model":{"vocab":{"a":0,"b":1,"c":2,"Ã":3,"©":4},"merges":[]}})",
      "tokenizer.json");
}

// The rest of the text that is being written.
inline std::string finish(Writer& writer) {
  std::string text;
  while (const auto piece = writer.next()) text += *piece;
  return text;
}

inline std::vector<std::byte> saved(const Writer& writer, std::string_view note) {
  std::vector<std::byte> bytes(snapshot_size(writer, note));
  save_snapshot(writer, note, bytes);
  return bytes;
}

}  // namespace allmem::test
