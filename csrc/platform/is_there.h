// Whether a file is there.
#pragma once

#include <filesystem>

namespace allmem {

// Of what a link leads to. Throws Error kIo where the system does not let us look: what cannot be seen may be
// there.
bool is_there(const std::filesystem::path& path);

}  // namespace allmem
