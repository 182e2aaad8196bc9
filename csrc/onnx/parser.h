// What the files that parse protobuf share: the model being read, the place in it, and the parsing of
// tensors.
#pragma once

#include <map>
#include <memory>
#include <protozero/pbf_reader.hpp>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "onnx/check.h"
#include "onnx/model.h"

namespace allmem::onnx {

using protozero::pbf_wire_type;
using protozero::tag_and_type;

inline constexpr auto kVarint = pbf_wire_type::varint;
inline constexpr auto kBytes = pbf_wire_type::length_delimited;
inline constexpr auto kFixed32 = pbf_wire_type::fixed32;

// protozero's, which on 32 bits takes a length of 2 GiB or more for a negative one.
class pbf_reader : public protozero::pbf_reader {
 public:
  using protozero::pbf_reader::pbf_reader;
  pbf_reader(const protozero::pbf_reader& reader) : protozero::pbf_reader(reader) {}  // NOLINT: implicit

  bool next() {
    if (!protozero::pbf_reader::next()) return false;
    if (wire_type() != pbf_wire_type::length_delimited) return true;
    const char* at = data().data();
    const char* const end = at + length();
    if (protozero::decode_varint(&at, end) > static_cast<size_t>(end - at))
      throw protozero::end_of_buffer_exception();
    return true;
  }
  // The next field of this kind.
  bool next(protozero::pbf_tag_type field, pbf_wire_type type) {
    while (next()) {
      if (tag() == field && wire_type() == type) return true;
      skip();
    }
    return false;
  }
};

// Far above any real model, and low enough that a hostile file cannot make structs much larger than itself.
inline constexpr size_t kMaxRank = 8;
inline constexpr size_t kMaxExternalEntries = 16;

class Parser {
 protected:
  explicit Parser(const std::string& path);  // maps the file
  explicit Parser(std::vector<std::unique_ptr<MappedFile>> pieces);

  [[noreturn]] void fail(const std::string& problem) const;         // kBadModel
  [[noreturn]] void unsupported(const std::string& problem) const;  // kUnsupported
  void enter(const char* what,
             const pbf_reader& message);  // remembers the place that is being read, for messages
  std::pair<std::string_view, std::string_view> read_entry(pbf_reader reader);  // StringStringEntryProto
  Tensor read_tensor(pbf_reader reader, const char* what);  // TensorProto, its data found and checked

  static std::string_view view(pbf_reader& reader);

  std::unique_ptr<Model> model_;
  std::span<const std::byte> file_;
  std::string where_;  // " in the node at byte 17"

 private:
  struct RawTensor;
  void read_tensor_fields(pbf_reader reader, Tensor& tensor, RawTensor& raw);
  size_t byte_size(const Tensor& tensor) const;
  std::span<const std::byte> aligned(std::span<const std::byte> data, const Tensor& tensor);
  void check_copies() const;
  std::span<const std::byte> copied(std::span<const std::byte> data);

  std::map<std::pair<const std::byte*, size_t>, std::span<const std::byte>> copies_;  // by their originals
  uint64_t bytes_copied_ = 0;
};

}  // namespace allmem::onnx
