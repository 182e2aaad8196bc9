// POSIX: a name is a string of bytes.
#include "platform/file_path.h"

namespace allmem {

std::filesystem::path to_path(std::string_view name) { return name; }

std::string to_name(const std::filesystem::path& path) { return path.string(); }

std::filesystem::path real_path(const std::filesystem::path& path, std::error_code& error) {
  return std::filesystem::canonical(path, error);
}

}  // namespace allmem
