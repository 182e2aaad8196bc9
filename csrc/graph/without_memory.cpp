// Zeros are followed from the memories to where they are added to something; then what nothing needs is
// dropped.
#include "graph/without_memory.h"

#include <algorithm>
#include <array>

#include "platform/error.h"
#include "platform/printable.h"

namespace allmem {

namespace {

// Operators that give zeros for zeros as their first input.
constexpr std::array<std::string_view, 10> kOfZeros = {
    "Cast",  "Expand", "Identity", "RMSNormalization", "Reshape",
    "Slice", "Split",  "Squeeze",  "Transpose",        "Unsqueeze"};

class Zeros {
 public:
  explicit Zeros(const onnx::Model& model) : model_(model) { result_.keeps.assign(model.nodes.size(), true); }

  WithoutMemory run() {
    for (size_t i = 0; i < model_.nodes.size(); ++i) result_.keeps[i] = !pass(model_.nodes[i]);
    drop_what_nothing_needs();
    return std::move(result_);
  }

 private:
  bool is_zero(std::string_view name) const { return zeros_.contains(name); }

  // Whether the node's results are known without it.
  bool pass(const onnx::Node& node) {
    if (node.domain == "allmem" && (node.op_type == "TestTimeMemory" || node.op_type == "LinearMemory")) {
      for (const std::string_view input : node.inputs)
        if (input.ends_with(kStateSuffix)) result_.states.insert(input);
      zeros_.insert(node.outputs.begin(), node.outputs.end());
      return true;
    }
    if (std::none_of(node.inputs.begin(), node.inputs.end(), [&](auto name) { return is_zero(name); }))
      return false;
    const bool standard = node.domain.empty();
    if (standard && node.op_type == "Add" && node.inputs.size() == 2 && node.outputs.size() == 1 &&
        !(is_zero(node.inputs[0]) && is_zero(node.inputs[1]))) {
      const std::string_view other = node.inputs[is_zero(node.inputs[0]) ? 1 : 0];
      result_.stands_for.emplace(node.outputs[0], result_.name(other));
      return true;
    }
    const bool follows = node.op_type == "Mul" || node.op_type == "Add" ||
                         (is_zero(node.inputs[0]) &&
                          std::find(kOfZeros.begin(), kOfZeros.end(), node.op_type) != kOfZeros.end());
    if (!standard || !follows) {
      throw Error(ErrorCode::kUnsupported,
                  printable(model_.path + ": " + describe(node) +
                            " uses the output of the memory in a way that this version of allmem-edge "
                            "cannot leave out; load the model with its memory on."));
    }
    zeros_.insert(node.outputs.begin(), node.outputs.end());
    return true;
  }

  // Backwards from the logits and the states that are left.
  void drop_what_nothing_needs() {
    std::set<std::string_view> needed;
    for (const onnx::ValueInfo& output : model_.outputs) {
      if (!is_zero(output.name)) needed.insert(result_.name(output.name));
    }
    for (size_t i = model_.nodes.size(); i-- > 0;) {
      const onnx::Node& node = model_.nodes[i];
      result_.keeps[i] = result_.keeps[i] && std::any_of(node.outputs.begin(), node.outputs.end(),
                                                         [&](auto name) { return needed.contains(name); });
      if (!result_.keeps[i]) continue;
      for (const std::string_view input : node.inputs) needed.insert(result_.name(input));
    }
  }

  const onnx::Model& model_;
  WithoutMemory result_;
  std::set<std::string_view> zeros_;
};

}  // namespace

WithoutMemory without_memory(const onnx::Model& model) { return Zeros(model).run(); }

}  // namespace allmem
