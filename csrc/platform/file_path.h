// Names of files: UTF-8 in the library and at its borders, whatever the system makes of them.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>

namespace allmem {

// Throws Error kInvalidArgument where the system's names are Unicode and `name` is not UTF-8.
std::filesystem::path to_path(std::string_view name);
std::string to_name(const std::filesystem::path& path);

// The absolute path of something that exists, with all links resolved.
std::filesystem::path real_path(const std::filesystem::path& path, std::error_code& error);

}  // namespace allmem
