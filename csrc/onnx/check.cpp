// What must hold for a model's names and the order of its nodes.
#include "onnx/check.h"

#include <unordered_set>

#include "platform/error.h"
#include "platform/printable.h"

namespace allmem::onnx {

std::string type_name(DataType type) {
  switch (type) {
    case DataType::kUndefined:
      return "undefined";
    case DataType::kFloat:
      return "float32";
    case DataType::kUint8:
      return "uint8";
    case DataType::kInt8:
      return "int8";
    case DataType::kInt32:
      return "int32";
    case DataType::kInt64:
      return "int64";
    case DataType::kBool:
      return "bool";
    case DataType::kFloat16:
      return "float16";
    case DataType::kDouble:
      return "float64";
    case DataType::kBfloat16:
      return "bfloat16";
    case DataType::kUint4:
      return "uint4";
    case DataType::kInt4:
      return "int4";
  }
  return "type " + std::to_string(static_cast<int32_t>(type));
}

size_t type_bits(DataType type) {
  switch (type) {
    case DataType::kUint4:
    case DataType::kInt4:
      return 4;
    case DataType::kUint8:
    case DataType::kInt8:
    case DataType::kBool:
      return 8;
    case DataType::kFloat16:
    case DataType::kBfloat16:
      return 16;
    case DataType::kFloat:
    case DataType::kInt32:
      return 32;
    case DataType::kInt64:
    case DataType::kDouble:
      return 64;
    case DataType::kUndefined:
      break;
  }
  return 0;
}

std::string describe(const Node& node) {
  const std::string op =
      (node.domain.empty() ? "" : std::string(node.domain) + "::") + std::string(node.op_type);
  if (!node.name.empty()) return "node '" + std::string(node.name) + "' (" + op + ")";
  const std::string output = node.outputs.empty() ? "" : std::string(node.outputs.front());
  return "the " + op + " node that produces '" + output + "'";
}

namespace {

class GraphCheck {
 public:
  explicit GraphCheck(const Model& model) : model_(model) {}

  void run() {
    std::unordered_set<std::string_view> initializers, inputs;
    for (const Tensor& tensor : model_.initializers) {
      if (!initializers.insert(tensor.name).second) fail("two initializers are named '", tensor.name, "'");
    }
    for (const ValueInfo& input : model_.inputs) {
      if (!inputs.insert(input.name).second) fail("two graph inputs are named '", input.name, "'");
    }
    known_ = initializers;
    known_.insert(inputs.begin(), inputs.end());
    collect_outputs();
    for (const Node& node : model_.nodes) check_node(node);
    std::unordered_set<std::string_view> outputs;
    for (const ValueInfo& output : model_.outputs) {
      if (!outputs.insert(output.name).second) fail("two graph outputs are named '", output.name, "'");
      if (!known_.contains(output.name)) fail("no node produces the graph output '", output.name, "'");
    }
  }

 private:
  [[noreturn]] void fail(const std::string& before, std::string_view name, const std::string& after) const {
    throw Error(ErrorCode::kBadModel,
                printable(model_.path + ": " + before + std::string(name) + after + "."));
  }

  void collect_outputs() {
    for (const Node& node : model_.nodes) {
      bool has_output = false;
      for (const std::string_view output : node.outputs) {
        if (output.empty()) continue;
        has_output = true;
        if (known_.contains(output) || !made_.insert(output).second) {
          fail(describe(node) + " makes '", output, "', a name that is already taken");
        }
      }
      if (!has_output) fail("", describe(node), " has no output");
    }
  }

  void check_node(const Node& node) {
    std::unordered_set<std::string_view> attributes;
    for (const Attribute& attribute : node.attributes) {
      if (!attributes.insert(attribute.name).second) {
        fail(describe(node) + " has the attribute '", attribute.name, "' twice");
      }
    }
    for (const std::string_view input : node.inputs) {
      if (input.empty() || known_.contains(input)) continue;
      if (made_.contains(input)) {
        fail(describe(node) + " reads '", input,
             "' before it is produced: the nodes are out of order or form a cycle");
      }
      fail(describe(node) + " reads '", input, "', which no node produces");
    }
    for (const std::string_view output : node.outputs) {
      if (!output.empty()) known_.insert(output);
    }
  }

  const Model& model_;
  std::unordered_set<std::string_view> known_;  // values that exist at this point
  std::unordered_set<std::string_view> made_;   // outputs of all nodes
};

}  // namespace

void check_graph(const Model& model) { GraphCheck(model).run(); }

}  // namespace allmem::onnx
