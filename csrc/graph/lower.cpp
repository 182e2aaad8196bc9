// From ONNX structs to a Program: names to values, nodes to steps, constants folded on the way.
#include "graph/lower.h"

#include <algorithm>
#include <limits>
#include <set>

#include "platform/error.h"
#include "platform/printable.h"
#include "platform/thread_pool.h"

namespace allmem {

using onnx::DataType;
using Home = Buffer::Home;

namespace {

// With T = kMaxBlock: far above any real model.
constexpr uint64_t kMaxValueElements = uint64_t{1} << (kWideAddresses ? 34 : 28);
constexpr size_t kMaxFoldedBytes = size_t{256} << 20;
constexpr uint64_t kMaxStateGiB = kWideAddresses ? 64 : 1, kMaxStateBytes = kMaxStateGiB << 30;
// A value's bytes, of 64 bits each at most, can be counted.
static_assert(kMaxValueElements * 8 <= std::numeric_limits<size_t>::max());
static_assert(kMaxStateBytes <= std::numeric_limits<size_t>::max() && kMaxStateBytes % kAlignment == 0);
constexpr std::string_view kStateOutSuffix = ".state.out";

// Opset versions of the standard domain whose operators mean what this runtime implements.
constexpr int64_t kLeastOpset = 23, kMostOpset = 27;

size_t bytes_of(const Value& value, size_t tokens) {
  return static_cast<size_t>((uint64_t{elements(value.shape, tokens)} * onnx::type_bits(value.type) + 7) / 8);
}

}  // namespace

Lowering::Lowering(std::shared_ptr<const onnx::Model> model, FindOp find_op, const Kernels& kernels,
                   const Choices& choices)
    : model_(std::move(model)),
      find_op_(find_op),
      kernels_(kernels),
      choices_(choices),
      program_(std::make_unique<Program>()) {
  program_->source = model_;
  program_->kernels = &kernels_;
  const bool quantised = std::any_of(model_->nodes.begin(), model_->nodes.end(),
                                     [](const onnx::Node& node) { return node.op_type == "MatMulNBits"; });
  program_->precision = quantised ? choices_.precision : Precision::kExact;  // float32 throughout, or not
}

std::unique_ptr<Program> Lowering::run() {
  check_opsets();
  without_memory_.keeps.assign(model_->nodes.size(), true);
  if (choices_.memory == MemoryUse::kOff) without_memory_ = without_memory(*model_);
  for_each_node([&](const onnx::Node& node) {
    for (const std::string_view input : node.inputs) ++readers_[without_memory_.name(input)];
  });
  for (const onnx::ValueInfo& output : model_->outputs) ++readers_[without_memory_.name(output.name)];
  add_inputs();
  add_initializers();
  for_each_node([&](const onnx::Node& node) { add_node(node); });
  add_outputs();
  lay_out_states();
  std::erase_if(program_->steps, [](const Step& step) { return step.op == nullptr; });  // absorbed ones
  return std::move(program_);
}

void Lowering::for_each_node(FunctionRef<void(const onnx::Node&)> visit) const {
  for (size_t i = 0; i < model_->nodes.size(); ++i)
    if (without_memory_.keeps[i]) visit(model_->nodes[i]);
}

void Lowering::fail(ErrorCode code, const std::string& problem) const {
  throw Error(code, printable(model_->path + ": " + problem + "."));
}

void Lowering::check_opsets() const {
  bool standard = false;
  for (const auto& [domain, version] : model_->opsets) {
    const bool known = domain == "" ? version >= kLeastOpset && version <= kMostOpset
                                    : (domain != "allmem" && domain != "com.microsoft") || version == 1;
    standard = standard || domain == "";
    if (!known) {
      fail(ErrorCode::kUnsupported,
           "the model uses version " + std::to_string(version) + " of the operators of '" +
               (domain.empty() ? "ai.onnx" : std::string(domain)) + "', but this runtime has " +
               (domain.empty() ? std::to_string(kLeastOpset) + " to " + std::to_string(kMostOpset) : "1"));
    }
  }
  if (!standard)
    fail(ErrorCode::kBadModel, "the model does not say which version of the ONNX operators it uses");
}

// Sizes cannot overflow later: the rank and the product are bounded, also beside a 0, and T occurs once at
// most.
void Lowering::check_size(const std::string& name, const Shape& shape) const {
  if (shape.size() > kMaxRank) {
    fail(ErrorCode::kUnsupported, "'" + name + "' has " + std::to_string(shape.size()) +
                                      " dimensions, but this runtime has room for " +
                                      std::to_string(kMaxRank));
  }
  uint64_t count = 1, symbols = 0;
  for (const int64_t dim : shape) {
    symbols += dim == kTokens;
    const uint64_t size = dim == kTokens ? kMaxBlock
                          : dim < 0      ? kMaxValueElements
                                         : std::max<uint64_t>(static_cast<uint64_t>(dim), 1);
    if (count > kMaxValueElements / size) count = kMaxValueElements + 1;
    if (count <= kMaxValueElements) count *= size;
  }
  if (count > kMaxValueElements) {
    fail(ErrorCode::kBadModel, "'" + name + "' has the invalid shape " + to_string(shape));
  }
  if (symbols > 1) {
    fail(ErrorCode::kUnsupported, "'" + name + "' has the number of tokens in two dimensions of its shape " +
                                      to_string(shape) + ", which this runtime does not support");
  }
}

ValueId Lowering::add_value(Value value, Buffer buffer) {
  buffer.bytes = bytes_of(value, kMaxBlock);
  if (has_tokens(value.shape)) buffer.token_bytes = bytes_of(value, 1);
  value.buffer = static_cast<uint32_t>(program_->buffers.size());
  program_->buffers.push_back(buffer);
  program_->values.push_back(std::move(value));
  return static_cast<ValueId>(program_->values.size() - 1);
}

void Lowering::add_initializers() {
  const bool all = choices_.memory != MemoryUse::kOff;
  for (const onnx::Tensor& tensor : model_->initializers) {
    if (!all && !readers_.contains(tensor.name)) continue;
    if (!tensor.name.ends_with(kStateSuffix)) program_->weight_bytes += tensor.data.size();
    const auto found = names_.find(tensor.name);
    if (found != names_.end()) {  // the initial value of a state
      const Value& value = program_->values[found->second];
      if (value.state < 0) {
        fail(ErrorCode::kBadModel, "the graph input '" + value.name + "' must not have a default value");
      }
      if (tensor.type != DataType::kFloat || tensor.dims != value.shape) {
        fail(ErrorCode::kBadModel, "the initial value of the state '" + value.name + "' is " +
                                       type_name(tensor.type) + " " + to_string(tensor.dims) +
                                       ", but the state is float32 " + to_string(value.shape));
      }
      program_->states[static_cast<size_t>(value.state)].initial = {
          reinterpret_cast<const float*>(tensor.data.data()), tensor.data.size() / sizeof(float)};
      continue;
    }
    Value value{.name = std::string(tensor.name), .type = tensor.type, .shape = tensor.dims};
    check_size(value.name, value.shape);
    const ValueId id = add_value(std::move(value), {.home = Home::kConstant, .constant = tensor.data.data()});
    names_.emplace(tensor.name, id);
  }
}

void Lowering::add_inputs() {
  std::set<std::string_view> defaults;
  for (const onnx::Tensor& tensor : model_->initializers) defaults.insert(tensor.name);
  for (const onnx::ValueInfo& input : model_->inputs) {
    const std::string name(input.name);
    if (name.size() > kStateSuffix.size() && input.name.ends_with(kStateSuffix)) {
      if (without_memory_.states.contains(input.name)) continue;
      add_state(input);
      continue;
    }
    const bool is_ids = name == "input_ids";
    if (!is_ids && name != "position") {
      if (defaults.contains(input.name)) continue;  // ONNX lets a constant be an input with a default
      fail(ErrorCode::kUnsupported,
           "the graph input '" + name + "' is not input_ids, position or a state (NAME.state)");
    }
    if (input.type != DataType::kInt64 || !input.has_shape || input.shape.size() != (is_ids ? 1 : 0)) {
      fail(ErrorCode::kBadModel,
           "the graph input '" + name + "' must be int64 of shape " + (is_ids ? "[T]" : "[]"));
    }
    if (is_ids && input.shape[0].value >= 0) {
      fail(ErrorCode::kUnsupported, "the graph takes a fixed number of tokens (" +
                                        std::to_string(input.shape[0].value) +
                                        "); export it with a symbolic length of input_ids");
    }
    const ValueId id =
        add_value({.name = name, .type = DataType::kInt64, .shape = is_ids ? Shape{kTokens} : Shape{}},
                  {.home = is_ids ? Home::kIds : Home::kPosition});
    names_.emplace(name, id);
  }
  if (!names_.contains("input_ids")) fail(ErrorCode::kBadModel, "the graph has no input 'input_ids'");
}

void Lowering::add_state(const onnx::ValueInfo& input) {
  State state;
  state.name = std::string(input.name);
  bool fixed = input.type == DataType::kFloat && input.has_shape;
  for (const onnx::Dimension& dim : input.shape) {
    fixed = fixed && dim.value > 0;
    state.shape.push_back(std::max<int64_t>(dim.value, 1));
  }
  if (!fixed) {
    fail(ErrorCode::kBadModel,
         "the state '" + state.name + "' must be float32 with a fixed, non-empty shape");
  }
  check_size(state.name, state.shape);
  state.bytes = elements(state.shape, 1) * sizeof(float);
  const ValueId id = add_value(
      {.name = state.name, .shape = state.shape, .state = static_cast<int>(program_->states.size())},
      {.home = Home::kState});
  names_.emplace(state.name, id);
  state_buffers_.push_back(program_->values[id].buffer);
  program_->states.push_back(std::move(state));
  state_used_.push_back(false);
  state_written_.push_back(false);
}

void Lowering::add_node(const onnx::Node& node) {
  const OpMaker make = find_op_(node.domain, node.op_type);
  if (make == nullptr) {
    const bool function = std::find(model_->functions.begin(), model_->functions.end(),
                                    std::pair(node.domain, node.op_type)) != model_->functions.end();
    fail(ErrorCode::kUnsupported,
         describe(node) + " is an operator that this runtime does not have" +
             (function ? "; the file defines it as a function, so onnxruntime can run it" : ""));
  }
  std::vector<ValueId> inputs;
  for (const std::string_view given : node.inputs) {
    if (given.empty()) {
      inputs.push_back(kNoValue);
      continue;
    }
    const std::string_view name = without_memory_.name(given);
    const auto found = names_.find(name);
    if (found == names_.end()) {
      fail(ErrorCode::kBadModel,
           describe(node) + " reads '" + std::string(name) + "', which no node produces");
    }
    inputs.push_back(found->second);
  }
  Binder binder(*this, node, std::move(inputs));
  std::unique_ptr<const Op> op = make(binder);
  binder.check_attributes();
  if (op == nullptr) return;
  Step step = binder.step(std::move(op));
  for (const ValueId id : step.inputs) {
    if (id != kNoValue && elements(program_->values[id].shape, 1) == 0) {
      binder.fail("computes with '" + program_->values[id].name + "', which is empty");
    }
  }
  if (binder.is_foldable()) return fold(step, node);
  for (const ValueId id : step.outputs) {
    if (id != kNoValue) producer_.emplace(id, program_->steps.size());
  }
  program_->steps.push_back(std::move(step));
}

// Runs an operator on constants once, now.
void Lowering::fold(const Step& step, const onnx::Node& node) {
  for (const ValueId id : step.outputs) {
    if (id == kNoValue) continue;
    Buffer& buffer = program_->buffers[program_->values[id].buffer];
    if (buffer.bytes > kMaxFoldedBytes - folded_bytes_) {
      fail(ErrorCode::kUnsupported,
           describe(node) + " computes more than 256 MiB from constants; fold them when exporting");
    }
    folded_bytes_ += buffer.bytes;
    program_->folded.emplace_back(buffer.bytes);
    buffer.home = Home::kConstant;
    buffer.constant = program_->folded.back().data();
  }
  std::vector<float> scratch(step.op->scratch_floats(kernels_, 1));
  std::vector<Operand> operands;
  add_operands(*program_, step, operands);
  ThreadPool pool(1);
  RunContext ctx{.kernels = kernels_, .pool = pool, .program = *program_};
  ctx.step = &step;
  ctx.tokens = 1;
  ctx.operands = operands.data();
  ctx.scratch_data = scratch.data();
  step.op->run(ctx);
}

void Lowering::add_outputs() {
  for (const onnx::ValueInfo& output : model_->outputs) {
    if (output.name == "logits") {
      add_logits(output);
    } else if (output.name.ends_with(kStateOutSuffix)) {
      if (without_memory_.states.contains(output.name.substr(0, output.name.size() - 4))) continue;
      check_state_output(output);
    } else {
      fail(ErrorCode::kUnsupported, "the graph output '" + std::string(output.name) +
                                        "' is neither logits nor a state (NAME.state.out)");
    }
  }
  if (program_->logits == kNoValue) fail(ErrorCode::kBadModel, "the graph has no output 'logits'");
  for (size_t i = 0; i < program_->states.size(); ++i) {
    const std::string& name = program_->states[i].name;
    if (!state_used_[i]) fail(ErrorCode::kBadModel, "no node reads the state '" + name + "'");
    if (!state_written_[i])
      fail(ErrorCode::kBadModel, "the state '" + name + "' has no output '" + name + ".out'");
  }
}

void Lowering::check_state_bytes(uint64_t bytes) const {
  if (bytes <= kMaxStateBytes) return;
  const std::string problem = "the states need more than " + std::to_string(kMaxStateGiB) + " GiB";
  if (!choices_.window) fail(ErrorCode::kBadModel, problem);
  fail(ErrorCode::kInvalidArgument,
       problem + " with a window of " + std::to_string(*choices_.window) + " tokens; choose less");
}

size_t Lowering::add_derived(uint64_t bytes) {
  const size_t offset = program_->derived_bytes;
  if (bytes > kMaxStateBytes - offset) {
    fail(ErrorCode::kBadModel,
         "the operators keep beside their states more than " + std::to_string(kMaxStateGiB) + " GiB");
  }
  program_->derived_bytes += align_up(static_cast<size_t>(bytes));
  return offset;
}

// Last, when the operators have said in which form they keep their states, and what else they keep.
void Lowering::lay_out_states() {
  for (size_t i = 0; i < state_buffers_.size(); ++i) {
    Buffer& buffer = program_->buffers[state_buffers_[i]];
    check_state_bytes(uint64_t{program_->state_bytes} + align_up(buffer.bytes));
    buffer.offset = program_->state_bytes;
    program_->state_bytes += align_up(buffer.bytes);
    if (i >= program_->states.size()) continue;
    program_->states[i].offset = buffer.offset;
    program_->states[i].bytes = buffer.bytes;
  }
}

void Lowering::add_logits(const onnx::ValueInfo& output) {
  const auto found = names_.find(without_memory_.name(output.name));
  if (found == names_.end()) fail(ErrorCode::kBadModel, "no node produces 'logits'");
  const ValueId id = found->second;
  const Value& value = program_->values[id];
  Buffer& buffer = program_->buffers[value.buffer];
  if (value.type != DataType::kFloat || value.shape.size() != 2 || value.shape[0] != kTokens ||
      value.shape[1] < 1 || value.shape[1] > std::numeric_limits<int32_t>::max()) {
    fail(ErrorCode::kBadModel, "the logits must be float32 of shape [T, vocab], but are " +
                                   type_name(value.type) + " " + to_string(value.shape));
  }
  if (buffer.home != Home::kArena) fail(ErrorCode::kBadModel, "no node computes the logits");
  buffer.home = Home::kLogits;
  program_->logits = id;
  program_->vocab_size = value.shape[1];
  if (id_limit_ < program_->vocab_size) {
    fail(ErrorCode::kBadModel, "the embedding has " + std::to_string(id_limit_) + " rows, fewer than the " +
                                   std::to_string(program_->vocab_size) + " columns of the logits");
  }
}

void Lowering::check_state_output(const onnx::ValueInfo& output) {
  const std::string_view name = output.name.substr(0, output.name.size() - 4);  // without ".out"
  const auto found = names_.find(output.name);
  const Value* value = found == names_.end() ? nullptr : &program_->values[found->second];
  if (value == nullptr || value->state < 0 || !value->updated ||
      program_->states[static_cast<size_t>(value->state)].name != name) {
    fail(ErrorCode::kBadModel, "the graph output '" + std::string(output.name) +
                                   "' is not the update of a state '" + std::string(name) + "'");
  }
  state_written_[static_cast<size_t>(value->state)] = true;
}

std::unique_ptr<const Program> lower(std::shared_ptr<const onnx::Model> model, FindOp find_op,
                                     const Kernels& kernels, const Choices& choices) {
  std::unique_ptr<Program> program = Lowering(std::move(model), find_op, kernels, choices).run();
  mark_head(*program);
  form_stages(*program);
  plan(*program, kernels);
  return program;
}

}  // namespace allmem
