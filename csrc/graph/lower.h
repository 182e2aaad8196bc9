// From ONNX structs to a Program.
#pragma once

#include <limits>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "graph/binder.h"
#include "graph/choices.h"
#include "graph/program.h"
#include "graph/without_memory.h"
#include "platform/error.h"

namespace allmem {

// The maker for an operator; null when there is none.
using FindOp = OpMaker (*)(std::string_view domain, std::string_view op_type);

// Throws Error (kBadModel, kUnsupported; kInvalidArgument for choices that the model does not allow).
std::unique_ptr<const Program> lower(std::shared_ptr<const onnx::Model> model, FindOp find_op,
                                     const Kernels& kernels, const Choices& choices);

// The last parts of lower(). Which steps run only for the rows whose logits are asked for:
void mark_head(Program& program);
// which steps make a stage, and hence their order:
void form_stages(Program& program);
// and the size of a block, and where everything lies in memory.
void plan(Program& program, const Kernels& kernels);

// The state of lower() while it runs, of a whole file. Operators add their nodes to it through a Binder, and
// see nothing else of it.
class Lowering {
 public:
  Lowering(std::shared_ptr<const onnx::Model> model, FindOp find_op, const Kernels& kernels,
           const Choices& choices);
  std::unique_ptr<Program> run();

 private:
  friend class Binder;
  [[noreturn]] void fail(ErrorCode code, const std::string& problem) const;
  void for_each_node(FunctionRef<void(const onnx::Node&)> visit) const;  // of those that are kept
  void check_opsets() const;
  void add_initializers();
  void add_inputs();
  void add_state(const onnx::ValueInfo& input);
  void check_state_bytes(uint64_t bytes) const;  // of one state, or of all
  void lay_out_states();
  size_t add_derived(uint64_t bytes);  // Binder::derived()
  void add_node(const onnx::Node& node);
  void add_outputs();
  void add_logits(const onnx::ValueInfo& output);
  void check_state_output(const onnx::ValueInfo& output);
  void fold(const Step& step, const onnx::Node& node);
  void check_size(const std::string& name, const Shape& shape) const;
  ValueId add_value(Value value, Buffer buffer);

  std::shared_ptr<const onnx::Model> model_;
  FindOp find_op_;
  const Kernels& kernels_;
  Choices choices_;
  WithoutMemory without_memory_;  // all is kept, unless the memory is off
  std::unique_ptr<Program> program_;
  std::map<std::string, ValueId, std::less<>> names_;
  std::map<std::string, std::vector<ValueId>, std::less<>> shared_;
  std::map<std::string_view, size_t> readers_;  // how many nodes and graph outputs read a name
  std::map<ValueId, size_t> producer_;          // the step that makes a value
  std::vector<bool> state_used_, state_written_;
  std::vector<uint32_t> state_buffers_;  // of the states, in order, and then of what operators keep
  size_t folded_bytes_ = 0;
  int64_t id_limit_ = std::numeric_limits<int64_t>::max();  // the embeddings have as many rows
};

}  // namespace allmem
