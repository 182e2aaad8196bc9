// How many threads are worth starting.
#pragma once

#include <span>
#include <string>

namespace allmem {

// The cores that this process may run on, without those that the system says are less than half as fast as
// its fastest (the small ones of a phone): with them in a loop, the fast ones would wait at its end. No more
// than its control groups grant it, and at least 1.
int fast_cores();

// On Linux: how many cores' time the control groups of this process grant it (docker --cpus, limits of
// Kubernetes), a part of a core counting as one; INT_MAX where none limits it. `root`: where they are
// mounted, of version 1 or 2; `groups`: the file that names those of the process.
int cpu_quota_in(const std::string& root, const std::string& groups);

// On Linux: of the cores `ids`, as `folder`/cpuN/cpu_capacity tells; all of them where it does not.
int fast_cores_in(const std::string& folder, std::span<const int> ids);

}  // namespace allmem
