// Which cores threads are started for.
#include "platform/fast_cores.h"

#include <doctest/doctest.h>

#include <map>
#include <vector>

#include "../temp_dir.h"

using namespace allmem;
using namespace allmem::test;

namespace {

// What is found for cores that a system describes so.
int found(const std::map<int, std::string>& capacities, const std::vector<int>& ids) {
  const TempDir sysfs;
  for (const auto& [id, capacity] : capacities) {
    std::filesystem::create_directory(sysfs / ("cpu" + std::to_string(id)));
    sysfs.write("cpu" + std::to_string(id) + "/cpu_capacity", capacity);
  }
  return fast_cores_in(sysfs.path(), ids);
}

}  // namespace

TEST_CASE("cores that are less than half as fast as the fastest are left out") {
  const std::map<int, std::string> phone = {{0, "250\n"}, {1, "250\n"}, {2, "512\n"}, {3, "1024\n"}};
  CHECK(found(phone, {0, 1, 2, 3}) == 2);
  CHECK(found(phone, {0, 1, 2}) == 1);
  CHECK(found(phone, {0, 1}) == 2);  // among themselves they are fast
  CHECK(found({{0, "1024"}, {1, "1024"}}, {0, 1}) == 2);
}

TEST_CASE("without a usable description all cores count, and there is always one") {
  CHECK(found({}, {0, 1, 2}) == 3);
  CHECK(found({{0, "1024"}}, {0, 1}) == 2);
  CHECK(found({{0, "fast"}, {1, "1024"}}, {0, 1}) == 2);
  CHECK(found({{0, "-1"}, {1, "1024"}}, {0, 1}) == 2);
  CHECK(found({}, {}) == 1);
  CHECK(fast_cores() >= 1);
}
