// Tells what is not there from what cannot be looked at.
#include "platform/is_there.h"

#include <system_error>

#include "platform/error.h"
#include "platform/file_path.h"
#include "platform/printable.h"

namespace allmem {

bool is_there(const std::filesystem::path& path) {
  std::error_code error;
  if (std::filesystem::exists(path, error)) return true;
  if (!error || error == std::errc::no_such_file_or_directory || error == std::errc::not_a_directory)
    return false;
  throw Error(ErrorCode::kIo,
              printable("The file '" + to_name(path) + "' cannot be looked at: " + error.message() + "."));
}

}  // namespace allmem
