// Mapped files: what is mapped, and that everything but a readable regular file is refused in a sentence.
#include "platform/mapped_file.h"

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>

#include "../temp_dir.h"
#include "platform/error.h"

using namespace allmem;
using allmem::test::TempDir;

namespace {

void refused(const std::string& path, ErrorCode code, bool follow_symlink = true) {
  CAPTURE(path);
  try {
    const MappedFile file(path, follow_symlink);
    FAIL("mapped");
  } catch (const Error& error) {
    CHECK(error.code() == code);
    const std::string message = error.what();
    CHECK(message.ends_with("."));
    CHECK(message.find('\n') == std::string::npos);
  }
}

bool holds(const MappedFile& file, const std::string& content) {
  return file.bytes().size() == content.size() &&
         std::memcmp(file.bytes().data(), content.data(), content.size()) == 0;
}

}  // namespace

TEST_CASE("a file is mapped whole, and stays so when its name is gone") {
  const TempDir directory;
  const std::string content(100'003, 'x'), path = directory.write("file", content);
  const MappedFile file(path);
  CHECK(holds(file, content));
  CHECK(file.path() == path);
  std::filesystem::remove(path);
  CHECK(holds(file, content));
}

TEST_CASE("a file that was truncated before is mapped at its new size, and an empty one has no bytes") {
  const TempDir directory;
  const std::string path = directory.write("file", std::string(9000, 'x'));
  std::filesystem::resize_file(path, 4097);
  CHECK(holds(MappedFile(path), std::string(4097, 'x')));
  std::filesystem::resize_file(path, 0);
  CHECK(MappedFile(path).bytes().empty());
}

TEST_CASE("what is missing is not found") {
  const TempDir directory;
  const std::string file = directory.write("file", "x");
  refused("", ErrorCode::kNotFound);
  refused((directory / "missing").string(), ErrorCode::kNotFound);
  refused((directory / "line\nbreak").string(), ErrorCode::kNotFound);
  refused(file + "/below", ErrorCode::kNotFound);
  refused(file + std::string("\0y", 2), ErrorCode::kNotFound);
}

TEST_CASE("directories, pipes and devices are refused at once") {
  const TempDir directory;
  REQUIRE(::mkfifo((directory / "pipe").c_str(), 0600) == 0);  // that nobody writes to
  refused(directory.path(), ErrorCode::kIo);
  refused((directory / "pipe").string(), ErrorCode::kIo);
  refused("/dev/zero", ErrorCode::kIo);
}

TEST_CASE("what the system refuses to open is refused with its reason") {
  const TempDir directory;
  refused(directory.path() + "/" + std::string(5000, 'x'), ErrorCode::kIo);
  std::filesystem::create_symlink("loop", directory / "loop");
  refused((directory / "loop").string(), ErrorCode::kIo);
  const std::string file = directory.write("file", "x");
  REQUIRE(::chmod(file.c_str(), 0) == 0);
  if (::access(file.c_str(), R_OK) != 0) refused(file, ErrorCode::kIo);  // root may read it all the same
}

TEST_CASE("a symbolic link is followed only where that is allowed") {
  const TempDir directory;
  directory.write("file", "content");
  std::filesystem::create_symlink("file", directory / "link");
  CHECK(holds(MappedFile((directory / "link").string()), "content"));
  refused((directory / "link").string(), ErrorCode::kIo, /*follow_symlink=*/false);
}
