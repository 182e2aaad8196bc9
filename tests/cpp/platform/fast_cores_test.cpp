// Which cores threads are started for.
#include "platform/fast_cores.h"

#include <doctest/doctest.h>

#include <climits>
#include <filesystem>
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

TEST_CASE("no more cores than the control groups grant, of either version, however deep the limit lies") {
  struct Group {
    std::string groups;                        // /proc/self/cgroup
    std::map<std::string, std::string> files;  // below /sys/fs/cgroup
    int expected;
  };
  const std::string v1 = "5:memory:/a/b\n4:cpu,cpuacct:/a/b\n", v2 = "0::/a/b\n";
  for (const Group& group : std::vector<Group>{
           {v2, {{"a/b/cpu.max", "150000 100000\n"}}, 2},
           {v2, {{"a/b/cpu.max", "max 100000\n"}, {"a/cpu.max", "400000 100000\n"}}, 4},
           {v2, {{"a/b/cpu.max", "10000 100000\n"}}, 1},
           {v2, {{"cpu.max", "300000 100000\n"}}, 3},  // of a container: its own group is the root
           {v2, {{"a/b/cpu.max", "max 100000\n"}}, INT_MAX},
           {v2, {{"a/b/cpu.max", "rubbish"}}, INT_MAX},
           {v2, {}, INT_MAX},
           {v1, {{"cpu/a/b/cpu.cfs_quota_us", "200000"}, {"cpu/a/b/cpu.cfs_period_us", "100000"}}, 2},
           {v1,
            {{"cpu,cpuacct/a/cpu.cfs_quota_us", "50000"}, {"cpu,cpuacct/a/cpu.cfs_period_us", "100000"}},
            1},
           {v1, {{"cpu/a/b/cpu.cfs_quota_us", "-1"}, {"cpu/a/b/cpu.cfs_period_us", "100000"}}, INT_MAX},
           {v1, {{"cpu/cpu.cfs_quota_us", "700000"}, {"cpu/cpu.cfs_period_us", "100000"}}, 7},
           {"", {}, INT_MAX},
           {"no colon\n0:one\n", {}, INT_MAX}}) {
    const TempDir root;
    root.write("groups", group.groups);
    for (const auto& [name, content] : group.files) {
      std::filesystem::create_directories(std::filesystem::path(root / name).parent_path());
      root.write(name, content);
    }
    CAPTURE(group.groups);
    CHECK(cpu_quota_in(root.path(), root / "groups") == group.expected);
  }
}
