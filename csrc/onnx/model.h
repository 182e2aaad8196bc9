// An ONNX model as plain structs. Names, strings and tensor data are views of the mapped files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "platform/aligned_buffer.h"
#include "platform/mapped_file.h"

namespace allmem::onnx {

// TensorProto.DataType, the ones that this runtime can name.
enum class DataType : int32_t {
  kUndefined = 0,
  kFloat = 1,
  kUint8 = 2,
  kInt8 = 3,
  kInt32 = 6,
  kInt64 = 7,
  kBool = 9,
  kFloat16 = 10,
  kDouble = 11,
  kBfloat16 = 16,
  kUint4 = 21,
  kInt4 = 22,
};

std::string type_name(DataType type);  // "float32", or "type 99"
size_t type_bits(DataType type);       // bits of an element; 0 when the type is not one of the above

struct Tensor {
  std::string_view name;
  DataType type = DataType::kUndefined;
  std::vector<int64_t> dims;
  std::span<const std::byte> data;  // exactly the elements, little-endian, aligned for their type
};

struct Attribute {
  enum class Type { kOther, kFloat, kInt, kString, kTensor, kFloats, kInts };
  std::string_view name;
  Type type = Type::kOther;
  float f = 0;
  int64_t i = 0;
  std::string_view s;
  std::unique_ptr<Tensor> t;
  std::vector<float> floats;
  std::vector<int64_t> ints;
};

struct Node {
  std::string_view name, op_type, domain;  // the standard domain is ""
  std::vector<std::string_view> inputs;    // "" where an optional one is absent
  std::vector<std::string_view> outputs;
  std::vector<Attribute> attributes;
};

struct Dimension {
  int64_t value = -1;       // -1 when symbolic or unknown
  std::string_view symbol;  // "T"; empty when unknown
};

struct ValueInfo {
  std::string_view name;
  DataType type = DataType::kUndefined;  // kUndefined when not a tensor or not said
  bool has_shape = false;
  std::vector<Dimension> shape;
};

struct Model {
  std::string path;                                          // of the .onnx file, for messages
  std::vector<std::pair<std::string_view, int64_t>> opsets;  // domain, version
  std::vector<std::pair<std::string_view, std::string_view>> metadata;
  std::vector<std::pair<std::string_view, std::string_view>> functions;  // domain, name; bodies are not read
  std::vector<Node> nodes;                                               // in an order in which they can run
  std::vector<Tensor> initializers;
  std::vector<ValueInfo> inputs, outputs;

  // What the views point into.
  std::vector<std::unique_ptr<MappedFile>> files;
  bool is_closed = false;              // `files` is all there is: nothing is looked for on disk
  std::vector<AlignedBuffer> decoded;  // tensors that could not be used where they are mapped
};

// "node 'x' (MatMul)", or "the MatMul node that produces 'y'" when it has no name.
std::string describe(const Node& node);

// Reads and checks `path` (a .onnx file) and the data files beside it. After it: sizes fit, names are unique,
// every node's inputs exist before it. Throws Error (kNotFound, kIo, kBadModel, kUnsupported).
std::unique_ptr<const Model> read_model(const std::string& path);
// The same from pieces that are already in memory; each has the name by which model.onnx knows it.
std::unique_ptr<const Model> read_model(std::vector<std::unique_ptr<MappedFile>> pieces);

}  // namespace allmem::onnx
