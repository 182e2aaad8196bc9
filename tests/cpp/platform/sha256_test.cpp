// Against the examples of FIPS 180-4, and at every length around a block's end.
#include "platform/sha256.h"

#include <doctest/doctest.h>

#include <string>

using namespace allmem;

namespace {

std::string digest(const std::string& text) {
  std::string digits;
  for (const uint8_t byte : sha256(std::as_bytes(std::span(text)))) {
    digits += "0123456789abcdef"[byte >> 4];
    digits += "0123456789abcdef"[byte & 15];
  }
  return digits;
}

}  // namespace

TEST_CASE("SHA-256 gives the standard's digests") {
  CHECK(digest("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(digest("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(digest("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq") ==
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  CHECK(digest(std::string(1'000'000, 'a')) ==
        "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST_CASE("SHA-256 is right at every length around the end of a block") {
  std::string all;
  for (size_t size = 0; size <= 130; ++size) all += digest(std::string(size, 'x'));
  CHECK(digest(all) == "87aca1c44bc7ba8897768170211f0a02063de70801131ff86c7edb9ce32c6a50");
}
