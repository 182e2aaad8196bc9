// model.onnx (protobuf) to plain structs. Field numbers are those of onnx.proto; a field of another wire type
// than the one expected is skipped, as protobuf does with unknown fields.
#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <protozero/pbf_reader.hpp>

#include "onnx/check.h"
#include "platform/error.h"
#include "platform/printable.h"

namespace allmem::onnx {

static_assert(std::endian::native == std::endian::little, "tensor data is used as it is mapped");

namespace {

using protozero::pbf_reader;
using protozero::pbf_wire_type;
using protozero::tag_and_type;

constexpr auto kVarint = pbf_wire_type::varint;
constexpr auto kBytes = pbf_wire_type::length_delimited;
constexpr auto kFixed32 = pbf_wire_type::fixed32;

// Far above any real model, and low enough that a hostile file cannot make structs much larger than itself.
constexpr size_t kMaxRank = 8;
constexpr size_t kMaxPerNode = 4096;
constexpr size_t kMaxExternalEntries = 16;

std::string_view view(pbf_reader& reader) {
  const protozero::data_view bytes = reader.get_view();
  return {bytes.data(), bytes.size()};
}

template <class T>
std::span<const std::byte> bytes_of(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}

class Reader {
 public:
  explicit Reader(const std::string& path) : model_(std::make_unique<Model>()) {
    model_->path = path;
    model_->files.push_back(std::make_unique<MappedFile>(path));
    file_ = model_->files.front()->bytes();
  }

  std::unique_ptr<const Model> read() {
    try {
      read_model(pbf_reader(reinterpret_cast<const char*>(file_.data()), file_.size()));
    } catch (const protozero::exception&) {
      fail("is damaged" + where_ + ": it is not a whole ONNX file; copy or download it again");
    }
    check_graph(*model_);
    return std::move(model_);
  }

 private:
  [[noreturn]] void fail(const std::string& problem) const {
    throw Error(ErrorCode::kBadModel, printable("The model file '" + model_->path + "' " + problem + "."));
  }
  [[noreturn]] void unsupported(const std::string& problem) const {
    throw Error(ErrorCode::kUnsupported, printable(model_->path + ": " + problem + "."));
  }

  // Remembers the place that is being read, for messages.
  void enter(const char* what, const pbf_reader& message) {
    const char* start = reinterpret_cast<const char*>(file_.data());
    where_ = " in the " + std::string(what) + " at byte " + std::to_string(message.data().data() - start);
  }

  void read_model(pbf_reader reader) {
    bool has_graph = false;
    while (reader.next()) {
      switch (reader.tag_and_type()) {
        case tag_and_type(7, kBytes):
          if (has_graph) fail("has two graphs");
          has_graph = true;
          read_graph(reader.get_message());
          break;
        case tag_and_type(8, kBytes):
          read_opset(reader.get_message());
          break;
        case tag_and_type(14, kBytes):
          model_->metadata.push_back(read_entry(reader.get_message()));
          break;
        case tag_and_type(25, kBytes):
          read_function(reader.get_message());
          break;
        default:
          reader.skip();
      }
    }
    if (!has_graph) fail("holds no graph; it is empty, truncated, or not an ONNX file");
  }

  void read_opset(pbf_reader reader) {
    std::string_view domain;
    int64_t version = 0;
    while (reader.next()) {
      switch (reader.tag_and_type()) {
        case tag_and_type(1, kBytes):
          domain = view(reader);
          break;
        case tag_and_type(2, kVarint):
          version = reader.get_int64();
          break;
        default:
          reader.skip();
      }
    }
    model_->opsets.emplace_back(domain == "ai.onnx" ? "" : domain, version);
  }

  std::pair<std::string_view, std::string_view> read_entry(pbf_reader reader) {
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

  void read_function(pbf_reader reader) {
    std::pair<std::string_view, std::string_view> function;
    while (reader.next()) {
      switch (reader.tag_and_type()) {
        case tag_and_type(1, kBytes):
          function.second = view(reader);
          break;
        case tag_and_type(10, kBytes):
          function.first = view(reader);
          break;
        default:
          reader.skip();
      }
    }
    if (function.second.empty()) fail("has a function without a name");
    model_->functions.push_back(function);
  }

  void read_graph(pbf_reader reader) {
    while (reader.next()) {
      switch (reader.tag_and_type()) {
        case tag_and_type(1, kBytes):
          read_node(reader.get_message());
          break;
        case tag_and_type(5, kBytes):
          model_->initializers.push_back(read_tensor(reader.get_message(), "initializer"));
          if (model_->initializers.back().name.empty()) fail("has an initializer without a name" + where_);
          break;
        case tag_and_type(11, kBytes):
          model_->inputs.push_back(read_value_info(reader.get_message()));
          break;
        case tag_and_type(12, kBytes):
          model_->outputs.push_back(read_value_info(reader.get_message()));
          break;
        case tag_and_type(15, kBytes):
          unsupported("sparse initializers are not supported; export the weights as dense tensors");
        default:
          reader.skip();
      }
    }
  }

  void read_node(pbf_reader reader) {
    enter("node", reader);
    Node node;
    std::vector<pbf_reader> attributes;
    while (reader.next()) {
      switch (reader.tag_and_type()) {
        case tag_and_type(1, kBytes):
          node.inputs.push_back(view(reader));
          break;
        case tag_and_type(2, kBytes):
          node.outputs.push_back(view(reader));
          break;
        case tag_and_type(3, kBytes):
          node.name = view(reader);
          break;
        case tag_and_type(4, kBytes):
          node.op_type = view(reader);
          break;
        case tag_and_type(5, kBytes):
          attributes.push_back(reader.get_message());
          break;
        case tag_and_type(7, kBytes):
          node.domain = view(reader);
          break;
        default:
          reader.skip();
      }
      if (std::max({node.inputs.size(), node.outputs.size(), attributes.size()}) > kMaxPerNode) {
        fail("has a node with more than " + std::to_string(kMaxPerNode) + " inputs, outputs or attributes" +
             where_);
      }
    }
    if (node.op_type.empty()) fail("has a node without an operator" + where_);
    if (node.domain == "ai.onnx") node.domain = "";
    for (const pbf_reader& attribute : attributes) node.attributes.push_back(read_attribute(attribute, node));
    model_->nodes.push_back(std::move(node));
  }

  Attribute read_attribute(pbf_reader reader, const Node& node) {
    Attribute attribute;
    int32_t type = 0;
    while (reader.next()) {
      switch (reader.tag_and_type()) {
        case tag_and_type(1, kBytes):
          attribute.name = view(reader);
          break;
        case tag_and_type(2, kFixed32):
          attribute.f = reader.get_float();
          break;
        case tag_and_type(3, kVarint):
          attribute.i = reader.get_int64();
          break;
        case tag_and_type(4, kBytes):
          attribute.s = view(reader);
          break;
        case tag_and_type(5, kBytes):
          attribute.t = std::make_unique<Tensor>(read_tensor(reader.get_message(), "attribute"));
          break;
        case tag_and_type(7, kFixed32):
          attribute.floats.push_back(reader.get_float());
          break;
        case tag_and_type(7, kBytes):
          for (const float value : reader.get_packed_float()) attribute.floats.push_back(value);
          break;
        case tag_and_type(8, kVarint):
          attribute.ints.push_back(reader.get_int64());
          break;
        case tag_and_type(8, kBytes):
          for (const int64_t value : reader.get_packed_int64()) attribute.ints.push_back(value);
          break;
        case tag_and_type(20, kVarint):
          type = reader.get_enum();
          break;
        default:
          reader.skip();
      }
    }
    if (attribute.name.empty()) fail("has an attribute without a name in " + describe(node));
    attribute.type = attribute_type(type, attribute, node);
    return attribute;
  }

  Attribute::Type attribute_type(int32_t type, const Attribute& attribute, const Node& node) const {
    switch (type) {
      case 1:
        return Attribute::Type::kFloat;
      case 2:
        return Attribute::Type::kInt;
      case 3:
        return Attribute::Type::kString;
      case 4:
        if (!attribute.t) fail("has a tensor attribute without its tensor in " + describe(node));
        return Attribute::Type::kTensor;
      case 5:
      case 10:
        unsupported(describe(node) + " holds a subgraph, which the native runtime does not run");
      case 6:
        return Attribute::Type::kFloats;
      case 7:
        return Attribute::Type::kInts;
      default:
        return Attribute::Type::kOther;
    }
  }

  ValueInfo read_value_info(pbf_reader reader) {
    enter("input or output", reader);
    ValueInfo info;
    while (reader.next()) {
      switch (reader.tag_and_type()) {
        case tag_and_type(1, kBytes):
          info.name = view(reader);
          break;
        case tag_and_type(2, kBytes):
          read_type(reader.get_message(), info);
          break;
        default:
          reader.skip();
      }
    }
    if (info.name.empty()) fail("has a graph input or output without a name" + where_);
    return info;
  }

  void read_type(pbf_reader type, ValueInfo& info) {
    while (type.next(1, kBytes)) {  // TypeProto.tensor_type
      pbf_reader tensor = type.get_message();
      while (tensor.next()) {
        switch (tensor.tag_and_type()) {
          case tag_and_type(1, kVarint):
            info.type = static_cast<DataType>(tensor.get_int32());
            break;
          case tag_and_type(2, kBytes): {
            info.has_shape = true;
            pbf_reader shape = tensor.get_message();
            while (shape.next(1, kBytes)) {
              if (info.shape.size() == kMaxRank) fail("has a shape of more than 8 dimensions" + where_);
              info.shape.push_back(read_dimension(shape.get_message()));
            }
            break;
          }
          default:
            tensor.skip();
        }
      }
    }
  }

  Dimension read_dimension(pbf_reader reader) {
    Dimension dimension;
    while (reader.next()) {
      switch (reader.tag_and_type()) {
        case tag_and_type(1, kVarint):
          dimension.value = reader.get_int64();
          if (dimension.value < 0) fail("has a negative dimension" + where_);
          break;
        case tag_and_type(2, kBytes):
          dimension.symbol = view(reader);
          break;
        default:
          reader.skip();
      }
    }
    return dimension;
  }

  // The fields of a TensorProto before its data is found.
  struct RawTensor {
    std::string_view raw;
    bool has_raw = false, external = false;
    std::vector<std::pair<std::string_view, std::string_view>> entries;
    std::vector<float> floats;
    std::vector<int32_t> int32s;
    std::vector<int64_t> int64s;
  };

  Tensor read_tensor(pbf_reader reader, const char* what) {
    enter(what, reader);
    Tensor tensor;
    RawTensor raw;
    read_tensor_fields(reader, tensor, raw);
    const size_t size = byte_size(tensor);
    if (raw.external) {
      tensor.data = aligned(external_bytes(*model_, std::string(tensor.name), location(raw), size), tensor);
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

  void read_tensor_fields(pbf_reader reader, Tensor& tensor, RawTensor& raw) {
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
        case tag_and_type(14, kVarint):
          raw.external = reader.get_enum() == 1;
          break;
        default:
          reader.skip();
      }
      if (tensor.dims.size() > kMaxRank || raw.entries.size() > kMaxExternalEntries) {
        fail("has a tensor of more than 8 dimensions or 16 external_data entries" + where_);
      }
    }
  }

  // Bytes that the type and dims need; every dim and every product is checked.
  size_t byte_size(const Tensor& tensor) const {
    const size_t bits = type_bits(tensor.type);
    if (bits == 0) {
      unsupported("tensor '" + std::string(tensor.name) + "' has the element type " + type_name(tensor.type) +
                  ", which this runtime does not have");
    }
    size_t count = 1;
    for (const int64_t dim : tensor.dims) {
      if (dim < 0) fail("is damaged: tensor '" + std::string(tensor.name) + "' has a negative dimension");
      if (dim != 0 && count > std::numeric_limits<size_t>::max() / 64 / static_cast<size_t>(dim)) {
        fail("is damaged: tensor '" + std::string(tensor.name) + "' has an impossible number of elements");
      }
      count *= static_cast<size_t>(dim);
    }
    return (count * bits + 7) / 8;
  }

  ExternalLocation location(const RawTensor& raw) const {
    ExternalLocation where;
    for (const auto& [key, value] : raw.entries) {
      if (key == "location") where.location = value;
      if (key == "offset") where.offset = value;
      if (key == "length") where.length = value;
    }
    return where;
  }

  // Data is used where it is mapped, unless it lies at an address that its type cannot have.
  std::span<const std::byte> aligned(std::span<const std::byte> data, const Tensor& tensor) {
    const size_t alignment = std::max<size_t>(type_bits(tensor.type) / 8, 1);
    return reinterpret_cast<uintptr_t>(data.data()) % alignment == 0 ? data : copied(data);
  }

  std::span<const std::byte> copied(std::span<const std::byte> data) {
    if (data.empty()) return {};
    AlignedBuffer& buffer = model_->decoded.emplace_back(data.size());
    std::memcpy(buffer.data(), data.data(), data.size());
    return {buffer.data(), data.size()};
  }

  std::unique_ptr<Model> model_;
  std::span<const std::byte> file_;
  std::string where_;
};

}  // namespace

std::unique_ptr<const Model> read_model(const std::string& path) { return Reader(path).read(); }

}  // namespace allmem::onnx
