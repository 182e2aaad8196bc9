// model.onnx (protobuf) to plain structs. Field numbers are those of onnx.proto; a field of another wire type
// than the one expected is skipped, as protobuf does with unknown fields.
#include <algorithm>
#include <protozero/pbf_reader.hpp>

#include "onnx/check.h"
#include "onnx/parser.h"
#include "platform/error.h"

namespace allmem::onnx {

namespace {

constexpr size_t kMaxPerNode = 4096;  // inputs, outputs, attributes

class Reader : private Parser {
 public:
  explicit Reader(const std::string& path) : Parser(path) {}
  explicit Reader(std::vector<std::unique_ptr<MappedFile>> pieces) : Parser(std::move(pieces)) {}

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
          attributes.emplace_back(reader.get_message());
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
};

}  // namespace

std::unique_ptr<const Model> read_model(const std::string& path) { return Reader(path).read(); }

std::unique_ptr<const Model> read_model(std::vector<std::unique_ptr<MappedFile>> pieces) {
  return Reader(std::move(pieces)).read();
}

}  // namespace allmem::onnx
