// Tensors from protobuf: their fields, their size, and where their data lies.
#include "onnx/parser.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "platform/error.h"
#include "platform/printable.h"

namespace allmem::onnx {

static_assert(std::endian::native == std::endian::little, "tensor data is used as it is mapped");

namespace {

template <class T>
std::span<const std::byte> bytes_of(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}

}  // namespace

Parser::Parser(const std::string& path) : model_(std::make_unique<Model>()) {
  model_->path = path;
  model_->files.push_back(std::make_unique<MappedFile>(path));
  file_ = model_->files.front()->bytes();
}

Parser::Parser(std::vector<std::unique_ptr<MappedFile>> pieces) : model_(std::make_unique<Model>()) {
  model_->path = "model.onnx";
  model_->is_closed = true;
  model_->files = std::move(pieces);
  const auto found = std::ranges::find(model_->files, model_->path, &MappedFile::path);
  if (found == model_->files.end()) {
    throw Error(ErrorCode::kNotFound, "The files given do not include model.onnx.");
  }
  file_ = (*found)->bytes();
}

void Parser::fail(const std::string& problem) const {
  throw Error(ErrorCode::kBadModel, printable("The model file '" + model_->path + "' " + problem + "."));
}
void Parser::unsupported(const std::string& problem) const {
  throw Error(ErrorCode::kUnsupported, printable(model_->path + ": " + problem + "."));
}

void Parser::enter(const char* what, const pbf_reader& message) {
  const char* start = reinterpret_cast<const char*>(file_.data());
  where_ = " in the " + std::string(what) + " at byte " + std::to_string(message.data().data() - start);
}

std::string_view Parser::view(pbf_reader& reader) {
  const protozero::data_view bytes = reader.get_view();
  return {bytes.data(), bytes.size()};
}

std::pair<std::string_view, std::string_view> Parser::read_entry(pbf_reader reader) {
  std::pair<std::string_view, std::string_view> entry;
  while (reader.next()) {
    switch (reader.tag_and_type()) {
      case tag_and_type(1, kBytes):
        entry.first = view(reader);
        break;
      case tag_and_type(2, kBytes):
        entry.second = view(reader);
        break;
      default:
        reader.skip();
    }
  }
  if (entry.first.empty()) fail("has an entry without a key" + where_);
  return entry;
}

// The fields of a TensorProto before its data is found.
struct Parser::RawTensor {
  std::string_view raw;
  bool has_raw = false, external = false;
  std::vector<std::pair<std::string_view, std::string_view>> entries;
  std::vector<float> floats;
  std::vector<int32_t> int32s;
  std::vector<int64_t> int64s;

  ExternalLocation location() const {
    ExternalLocation where;
    for (const auto& [key, value] : entries) {
      if (key == "location") where.location = value;
      if (key == "offset") where.offset = value;
      if (key == "length") where.length = value;
    }
    return where;
  }
};

Tensor Parser::read_tensor(pbf_reader reader, const char* what) {
  enter(what, reader);
  Tensor tensor;
  RawTensor raw;
  read_tensor_fields(reader, tensor, raw);
  const size_t size = byte_size(tensor);
  if (raw.external) {
    tensor.data = aligned(external_bytes(*model_, std::string(tensor.name), raw.location(), size), tensor);
    return tensor;
  }
  if (raw.has_raw) {
    tensor.data = std::as_bytes(std::span(raw.raw));
  } else if (tensor.type == DataType::kFloat) {
    tensor.data = bytes_of(raw.floats);
  } else if (tensor.type == DataType::kInt64) {
    tensor.data = bytes_of(raw.int64s);
  } else if (tensor.type == DataType::kInt32) {
    tensor.data = bytes_of(raw.int32s);
  } else if (size != 0) {
    unsupported("tensor '" + std::string(tensor.name) + "' of type " + type_name(tensor.type) +
                " is not stored as raw_data or external data, which this runtime needs");
  }
  if (tensor.data.size() != size) {
    fail("is damaged: tensor '" + std::string(tensor.name) + "' has " + std::to_string(tensor.data.size()) +
         " bytes where its type and shape need " + std::to_string(size));
  }
  tensor.data = raw.has_raw ? aligned(tensor.data, tensor) : copied(tensor.data);
  return tensor;
}

void Parser::read_tensor_fields(pbf_reader reader, Tensor& tensor, RawTensor& raw) {
  while (reader.next()) {
    switch (reader.tag_and_type()) {
      case tag_and_type(1, kVarint):
        tensor.dims.push_back(reader.get_int64());
        break;
      case tag_and_type(1, kBytes):
        for (const int64_t dim : reader.get_packed_int64()) {
          tensor.dims.push_back(dim);
          if (tensor.dims.size() > kMaxRank) break;
        }
        break;
      case tag_and_type(2, kVarint):
        tensor.type = static_cast<DataType>(reader.get_int32());
        break;
      case tag_and_type(4, kBytes):
        for (const float value : reader.get_packed_float()) raw.floats.push_back(value);
        break;
      case tag_and_type(4, kFixed32):
        raw.floats.push_back(reader.get_float());
        break;
      case tag_and_type(5, kBytes):
        for (const int32_t value : reader.get_packed_int32()) raw.int32s.push_back(value);
        break;
      case tag_and_type(5, kVarint):
        raw.int32s.push_back(reader.get_int32());
        break;
      case tag_and_type(7, kBytes):
        for (const int64_t value : reader.get_packed_int64()) raw.int64s.push_back(value);
        break;
      case tag_and_type(7, kVarint):
        raw.int64s.push_back(reader.get_int64());
        break;
      case tag_and_type(8, kBytes):
        tensor.name = view(reader);
        break;
      case tag_and_type(9, kBytes):
        raw.raw = view(reader);
        raw.has_raw = true;
        break;
      case tag_and_type(13, kBytes):
        raw.entries.push_back(read_entry(reader.get_message()));
        break;
      case tag_and_type(14, kVarint): {
        const int32_t location = reader.get_enum();
        if (location < 0 || location > 1) fail("has a tensor with an unknown data_location" + where_);
        raw.external = location == 1;
        break;
      }
      default:
        reader.skip();
    }
    if (tensor.dims.size() > kMaxRank || raw.entries.size() > kMaxExternalEntries) {
      fail("has a tensor of more than 8 dimensions or 16 external_data entries" + where_);
    }
  }
}

// Bytes that the type and dims need; every dim and every product is checked.
size_t Parser::byte_size(const Tensor& tensor) const {
  const size_t bits = type_bits(tensor.type);
  if (bits == 0) {
    unsupported("tensor '" + std::string(tensor.name) + "' has the element type " + type_name(tensor.type) +
                ", which this runtime does not support");
  }
  uint64_t count = 1;
  for (const int64_t dim : tensor.dims) {
    if (dim < 0) fail("is damaged: tensor '" + std::string(tensor.name) + "' has a negative dimension");
    if (dim != 0 && count > std::numeric_limits<size_t>::max() / 64 / static_cast<uint64_t>(dim)) {
      fail("is damaged: tensor '" + std::string(tensor.name) + "' has too many elements");
    }
    count *= static_cast<uint64_t>(dim);
  }
  return static_cast<size_t>((count * bits + 7) / 8);
}

// Data is used where it is mapped, unless it lies at an address that its type cannot have. Tensors that share
// it share the copy.
std::span<const std::byte> Parser::aligned(std::span<const std::byte> data, const Tensor& tensor) {
  const size_t alignment = std::max<size_t>(type_bits(tensor.type) / 8, 1);
  if (reinterpret_cast<uintptr_t>(data.data()) % alignment == 0) return data;
  const auto [copy, is_new] = copies_.try_emplace({data.data(), data.size()});
  if (is_new) {
    bytes_copied_ += data.size();
    check_copies();
    copy->second = copied(data);
  }
  return copy->second;
}

// Tensors that overlap could ask for copies that are far larger than all there is to copy.
void Parser::check_copies() const {
  uint64_t bytes = 0;
  for (const auto& file : model_->files) bytes += file->bytes().size();
  if (bytes_copied_ > bytes) {
    fail(
        "has tensors that overlap at offsets which their types cannot have, and copies would be larger than "
        "the files; write its data with each tensor at a multiple of 64 bytes");
  }
}

std::span<const std::byte> Parser::copied(std::span<const std::byte> data) {
  if (data.empty()) return {};
  AlignedBuffer& buffer = model_->decoded.emplace_back(data.size());
  std::memcpy(buffer.data(), data.data(), data.size());
  return {buffer.data(), data.size()};
}

}  // namespace allmem::onnx
