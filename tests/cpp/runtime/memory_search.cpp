// Linux: the list of mappings in /proc.
#include "memory_search.h"

#include <cstdio>
#include <fstream>
#include <string>

namespace allmem::test {

std::vector<std::span<const std::byte>> writable_memory() {
  std::ifstream maps("/proc/self/maps");
  std::vector<std::span<const std::byte>> regions;
  for (std::string line; std::getline(maps, line);) {
    unsigned long begin = 0, end = 0;
    char access[5] = "";
    if (std::sscanf(line.c_str(), "%lx-%lx %4s", &begin, &end, access) != 3) continue;
    if (access[0] != 'r' || access[1] != 'w' || line.find("[v") != std::string::npos) continue;
    regions.push_back({reinterpret_cast<const std::byte*>(begin), end - begin});
  }
  return regions;
}

}  // namespace allmem::test
