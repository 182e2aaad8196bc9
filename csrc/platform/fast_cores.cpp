// From sysfs on Linux and Android, from sysctl on Apple's systems.
#include "platform/fast_cores.h"

#include <algorithm>
#include <cstdio>
#include <memory>
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

int fast_cores() {
#if defined(__linux__)
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (::sched_getaffinity(0, sizeof allowed, &allowed) == 0) {
    std::vector<int> ids;
    for (int id = 0; id < CPU_SETSIZE; ++id) {
      if (CPU_ISSET(id, &allowed)) ids.push_back(id);
    }
    return fast_cores_in("/sys/devices/system/cpu", ids);
  }
#elif defined(__APPLE__)
  int count = 0;
  size_t size = sizeof count;
  if (::sysctlbyname("hw.perflevel0.logicalcpu", &count, &size, nullptr, 0) == 0 && count > 0) return count;
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace allmem
