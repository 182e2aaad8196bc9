// From sysfs on Linux and Android, from sysctl on Apple's systems.
#include "platform/fast_cores.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <limits>
#include <memory>
#include <sstream>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace allmem {

int fast_cores_in(const std::string& folder, std::span<const int> ids) {
  std::vector<long> speeds;
  for (const int id : ids) {
    const std::string path = folder + "/cpu" + std::to_string(id) + "/cpu_capacity";
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "re"), std::fclose);
    long speed = 0;
    if (file == nullptr || std::fscanf(file.get(), "%ld", &speed) != 1 || speed <= 0)
      return std::max(1, static_cast<int>(ids.size()));
    speeds.push_back(speed);
  }
  if (speeds.empty()) return 1;
  const long fastest = *std::max_element(speeds.begin(), speeds.end());
  return static_cast<int>(std::count_if(speeds.begin(), speeds.end(),
                                        [&](long speed) { return speed >= fastest - fastest / 2; }));
}

namespace {

constexpr int kNoQuota = std::numeric_limits<int>::max();

// Microseconds of a period, of one group; kNoQuota where there is no limit.
int quota_of(double quota, double period) {
  if (!(quota > 0 && period > 0)) return kNoQuota;
  const double cores = std::ceil(quota / period);  // a part of a core is worth a thread
  return cores >= kNoQuota ? kNoQuota : static_cast<int>(cores);
}

int quota_v2(const std::string& folder) {
  std::ifstream file(folder + "/cpu.max");
  std::string quota;
  double period = 0;
  if (!(file >> quota >> period) || quota == "max") return kNoQuota;
  std::istringstream number(quota);
  double value = 0;
  return number >> value ? quota_of(value, period) : kNoQuota;
}

int quota_v1(const std::string& folder) {
  std::ifstream of_quota(folder + "/cpu.cfs_quota_us"), of_period(folder + "/cpu.cfs_period_us");
  double quota = 0, period = 0;
  return of_quota >> quota && of_period >> period ? quota_of(quota, period) : kNoQuota;
}

// Of `group` and of all groups around it: each limits what is inside.
template <class QuotaOf>
int smallest_quota(const std::string& root, std::string group, const QuotaOf& quota_in) {
  int smallest = quota_in(root);
  while (!group.empty() && group != "/") {
    smallest = std::min(smallest, quota_in(root + group));
    group.resize(group.find_last_of('/') == std::string::npos ? 0 : group.find_last_of('/'));
  }
  return smallest;
}

}  // namespace

int cpu_quota_in(const std::string& root, const std::string& groups) {
  int smallest = kNoQuota;
  std::ifstream file(groups);
  for (std::string line; std::getline(file, line);) {  // "4:cpu,cpuacct:/docker/x"; "0::/x" in version 2
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1),
                      group = line.substr(second + 1);
    if (controllers.empty()) smallest = std::min(smallest, smallest_quota(root, group, quota_v2));
    if (("," + controllers + ",").find(",cpu,") == std::string::npos) continue;
    for (const std::string& mount : {std::string("cpu"), controllers}) {
      smallest = std::min(smallest, smallest_quota(root + "/" + mount, group, quota_v1));
    }
  }
  return smallest;
}

int fast_cores() {
#if defined(__linux__)
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (::sched_getaffinity(0, sizeof allowed, &allowed) == 0) {
    std::vector<int> ids;
    for (int id = 0; id < CPU_SETSIZE; ++id) {
      if (CPU_ISSET(id, &allowed)) ids.push_back(id);
    }
    return std::min(fast_cores_in("/sys/devices/system/cpu", ids),
                    cpu_quota_in("/sys/fs/cgroup", "/proc/self/cgroup"));
  }
#elif defined(__APPLE__)
  int count = 0;
  size_t size = sizeof count;
  if (::sysctlbyname("hw.perflevel0.logicalcpu", &count, &size, nullptr, 0) == 0 && count > 0) return count;
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace allmem
