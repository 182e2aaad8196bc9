// SHA256SUMS: which lists are none, and how much is read because of one.
#include "runtime/checksums.h"

#include <doctest/doctest.h>

#include <map>
#include <string>
#include <vector>

#include "platform/error.h"

using namespace allmem;

namespace {

const std::string kDigits(64, '0');  // of no file

// The files that were asked for, and the refusal, if any.
struct Outcome {
  std::vector<std::string> asked;
  std::string refusal;
};

Outcome check(const std::string& list, std::span<const std::byte> content, Check how) {
  Outcome outcome;
  const FindFile find = [&](const std::string& name) {
    if (name == "SHA256SUMS") return std::make_shared<const MappedFile>(name, std::as_bytes(std::span(list)));
    outcome.asked.push_back(name);
    return std::make_shared<const MappedFile>(name, content);
  };
  try {
    check_files(find, how, /*complete=*/true);
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::kBadModel);
    outcome.refusal = error.what();
  }
  return outcome;
}

}  // namespace

TEST_CASE("a list names every file once, by its plain name inside the directory") {
  for (const char* name : {"/a.data", "../a.data", "b/../a.data", "./a.data", "b/./a.data", "b//a.data", "b/",
                           ".", "..", "C:a.data", "b\\a.data", "\\a.data"}) {
    CAPTURE(name);
    const Outcome outcome = check(kDigits + "  " + name + "\n", {}, Check::kSmall);
    CHECK(outcome.refusal.find("names '" + std::string(name)) != std::string::npos);
    CHECK(outcome.asked.empty());
  }
  // SHA-256 of nothing.
  const std::string line = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  b/..a..data\n";
  CHECK(check(line, {}, Check::kAll).refusal.empty());
  CHECK(check(line + line, {}, Check::kAll).refusal.find("names 'b/..a..data' twice") != std::string::npos);
}

TEST_CASE("what is compared at every load is bounded, whatever the list names") {
  const std::vector<std::byte> content(size_t{16} << 20);
  std::string list;
  for (const char* name : {"a.data", "b.data", "c.data", "d.data"})
    list += "080acf35a507ac9849cfcba47dc2ad83e01b75663a516279c8b9d243b719643e  " + std::string(name) + "\n";
  CHECK(check(list, content, Check::kSmall).refusal.empty());
  list += kDigits + "  e.data\n";
  CHECK(check(list, content, Check::kSmall).refusal.empty());
  CHECK(check(kDigits + "  e.data\n", content, Check::kSmall).refusal.find("e.data is not what") !=
        std::string::npos);
}
