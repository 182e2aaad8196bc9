// Tensor data beside model.onnx. The location comes from an untrusted file: it must be a plain relative path
// to a regular file inside the model's directory, also after symbolic links are resolved. Hard links are not
// refused: package managers make them on purpose, and one cannot be made by somebody who cannot already read
// the file.
#include <algorithm>
#include <charconv>
#include <filesystem>
#include <system_error>

#include "onnx/check.h"
#include "platform/error.h"
#include "platform/file_path.h"
#include "platform/printable.h"

namespace allmem::onnx {

namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail(const Model& model, const std::string& tensor, const std::string& problem) {
  throw Error(ErrorCode::kBadModel,
              printable(model.path + ": the data of tensor '" + tensor + "' " + problem + "."));
}

size_t parse_number(const Model& model, const std::string& tensor, std::string_view text, size_t otherwise) {
  if (text.empty()) return otherwise;
  size_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    fail(model, tensor, "has an offset or length that is not a number");
  }
  return value;
}

void check_location(const Model& model, const std::string& tensor, std::string_view location) {
  if (location.empty()) fail(model, tensor, "is external but names no file");
  if (location.find('\0') != std::string_view::npos || location.find('\\') != std::string_view::npos ||
      location.find(':') != std::string_view::npos) {
    fail(model, tensor, "names a file with a character that is not allowed (NUL, backslash or colon)");
  }
  for (size_t begin = 0; begin <= location.size();) {
    const size_t end = std::min(location.find('/', begin), location.size());
    const std::string_view part = location.substr(begin, end - begin);
    if (part.empty() || part == "." || part == "..") {
      fail(model, tensor,
           "is in '" + std::string(location) + "', which is not a plain path inside the model's directory");
    }
    begin = end + 1;
  }
}

// The real path of the file, when it is inside the model's directory.
std::string resolve(const Model& model, const std::string& tensor, std::string_view location) {
  const fs::path directory = to_path(model.path).parent_path();
  std::error_code error;
  const fs::path root = real_path(directory.empty() ? "." : directory, error);
  if (error) fail(model, tensor, "is in a directory that cannot be resolved");
  const fs::path file = real_path(root / to_path(location), error);
  if (error) {
    throw Error(ErrorCode::kNotFound,
                printable(model.path + ": the data of tensor '" + tensor + "' is in '" +
                          std::string(location) + "', but there is no such file in the model's directory."));
  }
  const fs::path relative = file.lexically_relative(root);
  if (relative.empty() || *relative.begin() == "..") {
    fail(model, tensor,
         "is in '" + std::string(location) + "', a link that leads out of the model's directory");
  }
  return to_name(file);
}

const MappedFile& map_once(Model& model, const std::string& tensor, std::string_view location) {
  check_location(model, tensor, location);
  if (model.is_closed) {
    const auto found = std::ranges::find(model.files, location, &MappedFile::path);
    if (found != model.files.end()) return **found;
    throw Error(ErrorCode::kNotFound,
                printable("The data of tensor '" + tensor + "' is in '" + std::string(location) +
                          "', but no piece of the model has this name."));
  }
  const std::string path = resolve(model, tensor, location);
  for (const auto& file : model.files) {
    if (file->path() == path) return *file;
  }
  // The path is already resolved: a symbolic link in its place by now would be an attack.
  model.files.push_back(std::make_unique<MappedFile>(path, /*follow_symlink=*/false));
  return *model.files.back();
}

}  // namespace

std::span<const std::byte> external_bytes(Model& model, const std::string& tensor,
                                          const ExternalLocation& where, size_t size) {
  const MappedFile& file = map_once(model, tensor, where.location);
  const size_t offset = parse_number(model, tensor, where.offset, 0);
  const size_t length = parse_number(model, tensor, where.length, size);
  if (length != size) {
    fail(model, tensor,
         "has " + std::to_string(length) + " bytes where its type and shape need " + std::to_string(size));
  }
  const std::span<const std::byte> bytes = file.bytes();
  if (offset > bytes.size() || size > bytes.size() - offset) {
    fail(model, tensor,
         "should be " + std::to_string(size) + " bytes at offset " + std::to_string(offset) + " of '" +
             std::string(where.location) + "', which has only " + std::to_string(bytes.size()) +
             " bytes; the file is truncated or belongs to another model");
  }
  return bytes.subspan(offset, size);
}

}  // namespace allmem::onnx
