// How many threads are worth starting.
#pragma once

#include <span>
#include <string>

namespace allmem {

// The cores that this process may run on, without those that the system says are less than half as fast as
// its fastest (the small ones of a phone): with them in a loop, the fast ones would wait at its end. At
// least 1.
int fast_cores();

// On Linux: of the cores `ids`, as `folder`/cpuN/cpu_capacity tells; all of them where it does not.
int fast_cores_in(const std::string& folder, std::span<const int> ids);

}  // namespace allmem
