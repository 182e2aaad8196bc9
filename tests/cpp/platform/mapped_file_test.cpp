// Mapped files: what is mapped, and that everything but a readable regular file is refused in a sentence.
#include "mapped_file_checks.h"
#include "platform/file_path.h"

using namespace allmem;
using namespace allmem::test;

TEST_CASE("a file is mapped whole") {
  const TempDir directory;
  const std::string content(100'003, 'x'), path = directory.write("file", content);
  const MappedFile file(path);
  CHECK(holds(file, content));
  CHECK(file.path() == path);
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
  refused(directory / "missing", ErrorCode::kNotFound);
  refused(directory / "line\nbreak", ErrorCode::kNotFound);
  refused(file + "/below", ErrorCode::kNotFound);
  refused(file + std::string("\0y", 2), ErrorCode::kNotFound);
}

TEST_CASE("a directory is refused") {
  const TempDir directory;
  refused(directory.path(), ErrorCode::kIo);
}

TEST_CASE("a name is UTF-8, whatever letters it has") {
  const TempDir directory;
  const std::string name = "Gedächtnis-记忆-🐘", path = directory.path() + "/" + name;
  std::ofstream(to_path(path), std::ios::binary) << "content";
  CHECK(holds(MappedFile(path), "content"));
  CHECK(to_name(to_path(path)) == path);
  std::error_code error;
  CHECK(to_name(real_path(to_path(path), error).filename()) == name);
  CHECK(!error);
  real_path(to_path(path + "x"), error);
  CHECK(error);
}
