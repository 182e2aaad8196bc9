// What the tests of mapped files share.
#pragma once

#include <doctest/doctest.h>

#include <cstring>
#include <string>

#include "../temp_dir.h"
#include "platform/error.h"
#include "platform/mapped_file.h"

namespace allmem::test {

inline void refused(const std::string& path, ErrorCode code) {
  CAPTURE(path);
  try {
    const MappedFile file(path);
    FAIL("mapped");
  } catch (const Error& error) {
    CHECK(error.code() == code);
    const std::string message = error.what();
    CHECK(message.ends_with("."));
    CHECK(message.find('\n') == std::string::npos);
  }
}

inline bool holds(const MappedFile& file, const std::string& content) {
  return file.bytes().size() == content.size() &&
         std::memcmp(file.bytes().data(), content.data(), content.size()) == 0;
}

}  // namespace allmem::test
