// What the maker of an operator sees of its node: inputs with inferred types and shapes, attributes, and ways
// to declare outputs. Everything wrong is reported as one sentence that names the file, the node and the
// operator. There is a Binder for each node, over the one Lowering of the file (graph/lower.h), which
// operators do not see.
#pragma once

#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "graph/choices.h"
#include "graph/program.h"
#include "platform/function_ref.h"

namespace allmem {

class Lowering;

class Binder {
 public:
  Binder(Lowering& lowering, const onnx::Node& node, std::vector<ValueId> inputs);

  const onnx::Node& node() const { return node_; }
  [[noreturn]] void fail(const std::string& problem) const;         // kBadModel: "<node> <problem>."
  [[noreturn]] void unsupported(const std::string& problem) const;  // kUnsupported
  void require(bool condition, const char* problem) const {
    if (!condition) fail(problem);
  }

  // Inputs. They are numbered as in the node; those that shared() adds follow.
  void expect_inputs(size_t least, size_t most) const;
  size_t input_count() const { return node_.inputs.size(); }
  bool has(size_t i) const { return i < node_.inputs.size() && inputs_[i] != kNoValue; }
  const Value& input(size_t i) const;                       // fails when absent, or a state
  const Value& input(size_t i, onnx::DataType type) const;  // and when of another type
  const Value& input(size_t i, onnx::DataType type, const Shape& shape) const;
  // float32, or what a Cast made "float32" of float16 and left as it was: its type is still kFloat16.
  const Value& float_or_half(size_t i) const;
  // Constant 8-bit codes that a DequantizeLinear made float32 and left as they were: their type is still
  // kUint8. None if input i is something else.
  struct Codes {
    size_t scales;  // number of the input, after the node's own, that holds the scale of each block
    size_t block;   // codes of the last axis that share one
  };
  std::optional<Codes> codes_of(size_t i);
  bool is_constant(size_t i) const;
  bool is_position(size_t i) const;
  bool is_ids(size_t i) const;
  std::span<const std::byte> constant_bytes(size_t i) const;  // fails when not a constant
  std::vector<int64_t> constant_ints(size_t i) const;         // of an int64 constant of rank 0 or 1

  // Attributes. One that no call asks for is an error: ignoring it could change the result.
  const onnx::Attribute* attribute(std::string_view name, onnx::Attribute::Type type);
  int64_t int_attribute(std::string_view name, std::optional<int64_t> otherwise = std::nullopt);
  int64_t size_attribute(std::string_view name, int64_t least);  // required, in [least, 2^31)
  float float_attribute(std::string_view name, std::optional<float> otherwise = std::nullopt);
  const std::vector<int64_t>* ints_attribute(std::string_view name);  // null when absent
  size_t axis(int64_t axis, size_t rank) const;                       // negative counts from the end

  // Outputs, numbered as in the node.
  size_t output_count() const { return node_.outputs.size(); }
  void output(size_t i, onnx::DataType type, const Shape& shape);
  void view(size_t i, size_t input, const Shape& shape);   // the same bytes with another shape
  void view_codes(size_t i, size_t codes, size_t scales);  // for codes_of(); both are inputs
  void constant(size_t i, onnx::DataType type, const Shape& shape, const std::byte* data);
  void update_state(size_t i, size_t input,
                    const Shape& shape);  // output i is input's state, updated in place
  // The same for a state that is kept in `bytes` of another form than float32, all zero bits at first.
  void update_packed_state(size_t i, size_t input, const Shape& shape, uint64_t bytes, StateForm form);
  // Another size than the file gives it, for a state of zeros; before update_state().
  void resize_state(size_t input, const Shape& from, const Shape& to);
  // update_state() for a state of which the session has nothing: it must not be touched.
  void leave_out_state(size_t i, size_t input, const Shape& shape);
  bool starts_at_zero(size_t input) const;         // a state without an initial value
  const float* initial_value(size_t input) const;  // of a state; null: zeros
  // A float32 buffer for this step only; returns its number for RunContext::out().
  size_t temporary(const Shape& shape);
  // A float32 buffer of the session's state that no name in the file stands for: 0 at first, saved and
  // restored with the rest. Returns its number for RunContext::out().
  size_t kept(const Shape& shape);
  // Bytes that the session keeps for this operator beside its state: what is computed from that, or is needed
  // to take tokens back. Returns their offset.
  size_t derived(uint64_t bytes);
  bool exact() const;  // Program::precision is kExact
  const Choices& choices() const;
  // Row t of the outputs depends on row t of the inputs only.
  void row_wise() { row_wise_ = true; }
  void may_throw() { may_throw_ = true; }  // when it runs, for what its inputs are

  // Values that several nodes need and none in the file makes, computed from the tokens' positions. The first
  // node that asks for `key` has `make`'s operator run before it. Returns the input numbers of its outputs,
  // float32 of `shapes`.
  using MakeShared = FunctionRef<void(std::unique_ptr<const Op>&)>;
  std::vector<size_t> shared(const std::string& key, const std::vector<Shape>& shapes, MakeShared make);
  // The same, computed row by row from this node's input i, for all the nodes that read it.
  std::vector<size_t> shared_from(size_t i, const std::string& key, const std::vector<Shape>& shapes,
                                  MakeShared make);

  // Fusing: the one input of the step of kind `op_type` that makes input i, when nothing else reads input i;
  // else kNoValue. absorb() then drops that step and makes its input this node's input i.
  ValueId absorbable(size_t i, std::string_view op_type) const;
  void absorb(size_t i, std::string_view op_type);
  ValueId input_id(size_t i) const { return inputs_[i]; }
  void limit_ids(int64_t rows);  // token ids must be below `rows`

  // For Lowering, when the operator is made: fails for an attribute that nobody asked for;
  void check_attributes() const;
  // the operator with the node's inputs, outputs and temporaries;
  Step step(std::unique_ptr<const Op> op) const;
  // and whether it can run once, now: it has constants only.
  bool is_foldable() const;

 private:
  std::vector<size_t> add_shared(const std::string& key, const std::vector<Shape>& shapes, Step step,
                                 MakeShared make);
  ValueId add_output(size_t i, Value value, Buffer buffer);
  void name_output(size_t i, ValueId id);

  Lowering& lowering_;
  const onnx::Node& node_;
  std::vector<ValueId> inputs_;
  std::vector<ValueId> outputs_, temporaries_;
  std::set<std::string_view> known_attributes_;
  bool row_wise_ = false, stateful_ = false, may_throw_ = false;
};

// Makes the operator of a node. Null: it has nothing to do at run time.
using OpMaker = std::unique_ptr<const Op> (*)(Binder& node);

}  // namespace allmem
