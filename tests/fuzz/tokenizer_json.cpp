// Any bytes as tokenizer.json; what loads must encode and decode.
#include <string>
#include <string_view>

#include "fuzz.h"
#include "tokenizer/generation_config.h"
#include "tokenizer/tokenizer.h"

using namespace allmem;

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view json(reinterpret_cast<const char*>(data), size);
  fuzz::expect_error_or_success([&] { generation_config(json, "generation_config.json"); });
  fuzz::expect_error_or_success([&] {
    const auto tokenizer = Tokenizer::from_json(json, "tokenizer.json");
    tokenizer->decode(tokenizer->encode("Héllo  wörld, it's 12345!\n<|im_end|> ﷺ e\u0301"));
  });
  return 0;
}
