// Any bytes as text: encoding must be total, decoded text must come back as it is, and streaming must equal
// decoding.
#include <cstdlib>
#include <string>
#include <string_view>

#include "fuzz.h"
#include "tokenizer/tokenizer.h"

using namespace allmem;

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto tokenizer = Tokenizer::from_file(ALLMEM_BUNDLED_MODEL "/tokenizer.json");
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  for (const bool special : {false, true}) {
    const auto ids = tokenizer->encode(text, special);
    const std::string whole = tokenizer->decode(ids, false);
    StreamDecoder decoder(tokenizer, false);
    std::string streamed;
    for (const int32_t id : ids) streamed += decoder.push(id);
    streamed += decoder.flush();
    if (streamed != whole) std::abort();
    // What was normalised once (NFC) and is valid comes back as it is.
    if (tokenizer->decode(tokenizer->encode(whole, special), false) != whole) std::abort();
  }
  return 0;
}
