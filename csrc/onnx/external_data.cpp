// Tensor data beside model.onnx. The location comes from an untrusted file: what it says must be a plain
// relative path below the model's directory. Links that lie there are followed wherever they lead, as the
// hub's cache, Bazel and Nix lay models out: only somebody who may write to the directory can put them there.
#include <algorithm>
#include <charconv>
#include <filesystem>

#include "onnx/check.h"
#include "platform/error.h"
#include "platform/file_path.h"
#include "platform/printable.h"

namespace allmem::onnx {

namespace {

[[noreturn]] void fail(const Model& model, const std::string& tensor, const std::string& problem) {
  throw Error(ErrorCode::kBadModel,
              printable(model.path + ": the data of tensor '" + tensor + "' " + problem + "."));
}

// Of 64 bits wherever this runs: what is too large for a file says so, with the file's size.
uint64_t parse_number(const Model& model, const std::string& tensor, std::string_view text,
                      uint64_t otherwise) {
  if (text.empty()) return otherwise;
  uint64_t value = 0;
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
    const bool here = part == "." && end < location.size();  // "./model.onnx.data", as other tools write it
    if (!here && (part.empty() || part == "." || part == "..")) {
      fail(model, tensor,
           "is in '" + std::string(location) + "', which is not a plain path inside the model's directory");
    }
    begin = end + 1;
  }
}

// The location without "./".
std::string plain(std::string_view location) {
  std::string path;
  for (size_t begin = 0; begin < location.size();) {
    const size_t end = std::min(location.find('/', begin), location.size());
    const std::string_view part = location.substr(begin, end - begin);
    if (part != ".") path.append(path.empty() ? "" : "/").append(part);
    begin = end + 1;
  }
  return path;
}

const MappedFile& map_once(Model& model, const std::string& tensor, std::string_view location) {
  check_location(model, tensor, location);
  const std::string name = plain(location);
  if (model.is_closed) {
    const auto found = std::ranges::find(model.files, name, &MappedFile::path);
    if (found != model.files.end()) return **found;
    throw Error(ErrorCode::kNotFound, printable("The data of tensor '" + tensor + "' is in '" + name +
                                                "', but no file of that name was given."));
  }
  const std::string path = to_name(to_path(model.path).parent_path() / to_path(name));
  for (const auto& file : model.files) {
    if (file->path() == path) return *file;
  }
  try {
    model.files.push_back(std::make_unique<MappedFile>(path));
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kNotFound) throw;
    throw Error(ErrorCode::kNotFound,
                printable(model.path + ": the data of tensor '" + tensor + "' is in '" + name +
                          "', but there is no such file in the model's directory."));
  }
  return *model.files.back();
}

}  // namespace

std::span<const std::byte> external_bytes(Model& model, const std::string& tensor,
                                          const ExternalLocation& where, size_t size) {
  const MappedFile& file = map_once(model, tensor, where.location);
  const uint64_t offset = parse_number(model, tensor, where.offset, 0);
  const uint64_t length = parse_number(model, tensor, where.length, size);
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
  return bytes.subspan(static_cast<size_t>(offset), size);
}

}  // namespace allmem::onnx
