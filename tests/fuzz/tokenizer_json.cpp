// Any bytes as tokenizer.json; what loads must encode and decode.
#include <string>
#include <string_view>

#include "fuzz.h"
#include "runtime/model_text.h"
#include "tokenizer/tokenizer.h"

using namespace allmem;

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view json(reinterpret_cast<const char*>(data), size);
  const FindFile find = [&](const std::string& name) -> std::unique_ptr<MappedFile> {
    if (std::string_view(name) == "tokenizer.json") return nullptr;
    return std::make_unique<MappedFile>(name, std::as_bytes(std::span(json)));
  };
  fuzz::expect_error_or_success([&] { read_model_text(find, 1 << 24); });  // every config at once
  fuzz::expect_error_or_success([&] {
    const auto tokenizer = Tokenizer::from_json(json, "tokenizer.json");
    tokenizer->decode(tokenizer->encode("Héllo  wörld, it's 12345!\n<|im_end|> ﷺ e\u0301"));
  });
  return 0;
}
