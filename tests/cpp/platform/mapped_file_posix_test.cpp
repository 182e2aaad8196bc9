// Mapped files where there are pipes, devices and symbolic links.
#include <sys/stat.h>
#include <unistd.h>

#include "mapped_file_checks.h"

using namespace allmem;
using namespace allmem::test;

TEST_CASE("a file stays mapped when its name is gone") {
  const TempDir directory;
  const std::string content(100'003, 'x'), path = directory.write("file", content);
  const MappedFile file(path);
  std::filesystem::remove(path);
  CHECK(holds(file, content));
}

TEST_CASE("a file of more than 4 GiB is mapped whole, or refused where addresses are too short for it") {
  const TempDir directory;
  const std::string path = directory.write("file", "");
  const auto size = (uint64_t{1} << 32) + 5;
  std::filesystem::resize_file(path, size);  // without taking room on the disk
  if (sizeof(size_t) >= sizeof(uint64_t)) {
    CHECK(MappedFile(path).bytes().size() == size);
  } else {
    refused(path, ErrorCode::kIo);
  }
}

TEST_CASE("pipes and devices are refused at once") {
  const TempDir directory;
  REQUIRE(::mkfifo((directory / "pipe").c_str(), 0600) == 0);  // that nobody writes to
  refused(directory / "pipe", ErrorCode::kIo);
  refused("/dev/zero", ErrorCode::kIo);
}

TEST_CASE("what the system refuses to open is refused with its reason") {
  const TempDir directory;
  refused(directory.path() + "/" + std::string(5000, 'x'), ErrorCode::kIo);
  std::filesystem::create_symlink("loop", directory / "loop");
  refused(directory / "loop", ErrorCode::kIo);
  const std::string file = directory.write("file", "x");
  REQUIRE(::chmod(file.c_str(), 0) == 0);
  if (::access(file.c_str(), R_OK) != 0) refused(file, ErrorCode::kIo);  // root may read it all the same
}

TEST_CASE("symbolic links are followed") {
  const TempDir directory;
  directory.write("file", "content");
  std::filesystem::create_symlink("file", directory / "link");
  CHECK(holds(MappedFile(directory / "link"), "content"));
}
