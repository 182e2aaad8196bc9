// A small valid tokenizer.json and a way to damage it.
#pragma once

#include <memory>
#include <string>

#include "tokenizer/tokenizer.h"

namespace allmem::test {

// Every byte has a token: ids 0 to 255 in the order of the bytes; then merges up to "hello" and " hello".
std::string small_tokenizer_json();

// `json` with the one occurrence of `from` replaced; fails the test if there is not exactly one.
std::string with(std::string json, const std::string& from, const std::string& to);

inline std::shared_ptr<const Tokenizer> load(const std::string& json) {
  return Tokenizer::from_json(json, "tokenizer.json");
}

}  // namespace allmem::test
