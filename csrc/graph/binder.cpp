// What the maker of an operator sees of its node.
#include "graph/binder.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "graph/lower.h"
#include "platform/error.h"

namespace allmem {

using onnx::Attribute;
using onnx::DataType;

Binder::Binder(Lowering& lowering, const onnx::Node& node, std::vector<ValueId> inputs)
    : lowering_(lowering), node_(node), inputs_(std::move(inputs)), outputs_(node.outputs.size(), kNoValue) {}

void Binder::fail(const std::string& problem) const {
  lowering_.fail(ErrorCode::kBadModel, describe(node_) + " " + problem);
}

void Binder::unsupported(const std::string& problem) const {
  lowering_.fail(ErrorCode::kUnsupported, describe(node_) + " " + problem);
}

void Binder::expect_inputs(size_t least, size_t most) const {
  if (node_.inputs.size() < least || node_.inputs.size() > most) {
    fail("has " + std::to_string(node_.inputs.size()) + " inputs, but needs " + std::to_string(least) +
         (most == least ? "" : " to " + std::to_string(most)));
  }
}

const Value& Binder::input(size_t i) const {
  if (!has(i)) fail("lacks its input " + std::to_string(i));
  const Value& value = lowering_.program_->values[inputs_[i]];
  if (value.state >= 0) {
    fail("reads the state '" + value.name + "', which only a stateful operator of the domain allmem may do");
  }
  return value;
}

const Value& Binder::input(size_t i, DataType type) const {
  const Value& value = input(i);
  if (value.type != type) {
    fail("needs " + type_name(type) + " as input " + std::to_string(i) + ", but '" + value.name + "' is " +
         type_name(value.type));
  }
  return value;
}

const Value& Binder::input(size_t i, DataType type, const Shape& shape) const {
  const Value& value = input(i, type);
  if (value.shape != shape) {
    fail("needs the shape " + to_string(shape) + " as input " + std::to_string(i) + ", but '" + value.name +
         "' is " + to_string(value.shape));
  }
  return value;
}

const Value& Binder::float_or_half(size_t i) const {
  const Value& value = input(i);
  return value.type == DataType::kFloat16 ? value : input(i, DataType::kFloat);
}

std::optional<Binder::Codes> Binder::codes_of(size_t i) {
  const Value& codes = input(i);
  if (codes.scales == kNoValue) return std::nullopt;
  const int64_t blocks = lowering_.program_->values[codes.scales].shape.back();
  inputs_.push_back(codes.scales);
  return Codes{.scales = inputs_.size() - 1, .block = static_cast<size_t>(codes.shape.back() / blocks)};
}

bool Binder::is_constant(size_t i) const {
  return has(i) && lowering_.program_->buffers[input(i).buffer].home == Buffer::Home::kConstant;
}

bool Binder::is_position(size_t i) const {
  return has(i) && lowering_.program_->buffers[input(i).buffer].home == Buffer::Home::kPosition;
}

bool Binder::is_ids(size_t i) const {
  return has(i) && lowering_.program_->buffers[input(i).buffer].home == Buffer::Home::kIds;
}

std::span<const std::byte> Binder::constant_bytes(size_t i) const {
  const Value& value = input(i);
  const Buffer& buffer = lowering_.program_->buffers[value.buffer];
  if (buffer.home != Buffer::Home::kConstant) {
    unsupported("needs a constant as input " + std::to_string(i) + ", but '" + value.name + "' is computed");
  }
  return {buffer.constant, buffer.bytes};
}

std::vector<int64_t> Binder::constant_ints(size_t i) const {
  const Value& value = input(i, DataType::kInt64);
  if (value.shape.size() > 1) fail("needs a list of integers as input " + std::to_string(i));
  const std::span<const std::byte> bytes = constant_bytes(i);
  std::vector<int64_t> values(bytes.size() / sizeof(int64_t));
  if (!values.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

const Attribute* Binder::attribute(std::string_view name, Attribute::Type type) {
  known_attributes_.insert(name);
  for (const Attribute& attribute : node_.attributes) {
    if (attribute.name != name) continue;
    if (attribute.type != type) fail("has the attribute '" + std::string(name) + "' with a wrong type");
    return &attribute;
  }
  return nullptr;
}

int64_t Binder::int_attribute(std::string_view name, std::optional<int64_t> otherwise) {
  if (const Attribute* found = attribute(name, Attribute::Type::kInt)) return found->i;
  if (!otherwise) fail("lacks the attribute '" + std::string(name) + "'");
  return *otherwise;
}

int64_t Binder::size_attribute(std::string_view name, int64_t least) {
  const int64_t value = int_attribute(name);
  if (value < least || value > std::numeric_limits<int32_t>::max()) {
    fail("has the invalid value " + std::to_string(value) + " for '" + std::string(name) + "'");
  }
  return value;
}

float Binder::float_attribute(std::string_view name, std::optional<float> otherwise) {
  if (const Attribute* found = attribute(name, Attribute::Type::kFloat)) return found->f;
  if (!otherwise) fail("lacks the attribute '" + std::string(name) + "'");
  return *otherwise;
}

const std::vector<int64_t>* Binder::ints_attribute(std::string_view name) {
  const Attribute* found = attribute(name, Attribute::Type::kInts);
  return found == nullptr ? nullptr : &found->ints;
}

size_t Binder::axis(int64_t axis, size_t rank) const {
  const int64_t signed_rank = static_cast<int64_t>(rank);
  if (axis < -signed_rank || axis >= signed_rank) {
    fail("names the axis " + std::to_string(axis) + " of a tensor of rank " + std::to_string(rank));
  }
  return static_cast<size_t>(axis < 0 ? axis + signed_rank : axis);
}

void Binder::name_output(size_t i, ValueId id) {
  if (i >= outputs_.size()) outputs_.resize(i + 1, kNoValue);
  outputs_[i] = id;
  if (i < node_.outputs.size() && !node_.outputs[i].empty()) {
    lowering_.names_.emplace(node_.outputs[i], id);
  }
}

ValueId Binder::add_output(size_t i, Value value, Buffer buffer) {
  if (i < node_.outputs.size()) value.name = node_.outputs[i];
  lowering_.check_size(value.name, value.shape);
  const ValueId id = lowering_.add_value(std::move(value), buffer);
  name_output(i, id);
  return id;
}

void Binder::output(size_t i, DataType type, const Shape& shape) {
  if (std::find(shape.begin(), shape.end(), 0) != shape.end())
    fail("makes an empty tensor " + to_string(shape));
  add_output(i, {.name = "", .type = type, .shape = shape}, {});
}

void Binder::view(size_t i, size_t input_index, const Shape& shape) {
  Value value = input(input_index);
  value.shape = shape;
  value.scales = kNoValue;
  value.name = i < node_.outputs.size() ? std::string(node_.outputs[i]) : "";
  lowering_.check_size(value.name, value.shape);
  lowering_.program_->values.push_back(std::move(value));
  name_output(i, static_cast<ValueId>(lowering_.program_->values.size() - 1));
}

void Binder::view_codes(size_t i, size_t codes, size_t scales) {
  view(i, codes, input(codes).shape);
  lowering_.program_->values.back().scales = inputs_[scales];
}

void Binder::constant(size_t i, DataType type, const Shape& shape, const std::byte* data) {
  add_output(i, {.name = "", .type = type, .shape = shape},
             {.home = Buffer::Home::kConstant, .constant = data});
}

void Binder::update_state(size_t i, size_t input_index, const Shape& shape) {
  if (!has(input_index)) fail("lacks its input " + std::to_string(input_index));
  Value value = lowering_.program_->values[inputs_[input_index]];
  const auto index = static_cast<size_t>(value.state);
  if (value.state < 0 || value.updated) {
    fail("needs a graph input '….state' as input " + std::to_string(input_index) + ", but '" + value.name +
         "' is none");
  }
  if (value.shape != shape) {
    fail("needs the shape " + to_string(shape) + " for its state '" + value.name + "', which is " +
         to_string(value.shape));
  }
  if (lowering_.state_used_[index])
    fail("reads the state '" + value.name + "', which another node already does");
  if (i >= node_.outputs.size() || node_.outputs[i].empty()) {
    fail("reads the state '" + value.name + "' but has no output for its update");
  }
  lowering_.state_used_[index] = true;
  stateful_ = true;
  value.updated = true;
  value.name = node_.outputs[i];
  lowering_.program_->values.push_back(std::move(value));
  name_output(i, static_cast<ValueId>(lowering_.program_->values.size() - 1));
}

void Binder::update_packed_state(size_t i, size_t input_index, const Shape& shape, uint64_t bytes,
                                 StateForm form) {
  update_state(i, input_index, shape);
  lowering_.check_state_bytes(bytes);
  const Value& value = lowering_.program_->values[inputs_[input_index]];
  lowering_.program_->states[static_cast<size_t>(value.state)].form = form;
  lowering_.program_->buffers[value.buffer].bytes = static_cast<size_t>(bytes);
}

void Binder::resize_state(size_t input_index, const Shape& from, const Shape& to) {
  const ValueId id = has(input_index) ? inputs_[input_index] : kNoValue;
  Value* value = id == kNoValue ? nullptr : &lowering_.program_->values[id];
  if (from == to || value == nullptr || value->state < 0 || value->shape != from)
    return;  // for update_state()
  State& state = lowering_.program_->states[static_cast<size_t>(value->state)];
  if (!state.initial.empty()) {
    unsupported("cannot have another window than the file's, as '" + state.name +
                "' does not start with zeros");
  }
  lowering_.check_size(state.name, to);
  value->shape = state.shape = to;
  lowering_.program_->buffers[value->buffer].bytes = elements(to, 1) * sizeof(float);
}

void Binder::leave_out_state(size_t i, size_t input_index, const Shape& shape) {
  update_state(i, input_index, shape);
  const Value& value = lowering_.program_->values[inputs_[input_index]];
  lowering_.program_->states[static_cast<size_t>(value.state)].shape = {0};
  lowering_.program_->buffers[value.buffer].bytes = 0;
}

const Choices& Binder::choices() const { return lowering_.choices_; }

bool Binder::starts_at_zero(size_t input_index) const {
  const int state = has(input_index) ? lowering_.program_->values[inputs_[input_index]].state : -1;
  return state >= 0 && lowering_.program_->states[static_cast<size_t>(state)].initial.empty();
}

const float* Binder::initial_value(size_t input_index) const {
  const int state = lowering_.program_->values[inputs_[input_index]].state;
  const std::span<const float> initial = lowering_.program_->states[static_cast<size_t>(state)].initial;
  return initial.empty() ? nullptr : initial.data();
}

size_t Binder::temporary(const Shape& shape) {
  Value value{.name = "a temporary of " + describe(node_), .shape = shape};
  lowering_.check_size(value.name, shape);
  temporaries_.push_back(lowering_.add_value(std::move(value), {}));
  return outputs_.size() + temporaries_.size() - 1;
}

size_t Binder::kept(const Shape& shape) {
  Value value{.name = "a state of " + describe(node_), .shape = shape};
  lowering_.check_size(value.name, shape);
  temporaries_.push_back(lowering_.add_value(std::move(value), {.home = Buffer::Home::kState}));
  lowering_.state_buffers_.push_back(lowering_.program_->values[temporaries_.back()].buffer);
  return outputs_.size() + temporaries_.size() - 1;
}

bool Binder::exact() const { return lowering_.program_->precision == Precision::kExact; }

size_t Binder::derived(uint64_t bytes) { return lowering_.add_derived(bytes); }

std::vector<size_t> Binder::shared(const std::string& key, const std::vector<Shape>& shapes,
                                   MakeShared make) {
  Step step;
  step.by_session = true;
  return add_shared(key, shapes, std::move(step), make);
}

std::vector<size_t> Binder::shared_from(size_t i, const std::string& key, const std::vector<Shape>& shapes,
                                        MakeShared make) {
  const ValueId id = inputs_[i];
  Step step;
  step.inputs = {id};
  step.row_wise = token_major(lowering_.program_->values[id].shape);
  return add_shared(key + " of " + std::to_string(id), shapes, std::move(step), make);
}

std::vector<size_t> Binder::add_shared(const std::string& key, const std::vector<Shape>& shapes, Step step,
                                       MakeShared make) {
  auto [entry, is_new] = lowering_.shared_.try_emplace(key);
  if (is_new) {
    make(step.op);
    for (const Shape& shape : shapes) {
      lowering_.check_size(key, shape);
      step.outputs.push_back(lowering_.add_value({.name = key, .shape = shape}, {}));
    }
    entry->second = step.outputs;
    lowering_.program_->steps.push_back(std::move(step));
  }
  std::vector<size_t> numbers;
  for (const ValueId id : entry->second) {
    numbers.push_back(inputs_.size());
    inputs_.push_back(id);
  }
  return numbers;
}

ValueId Binder::absorbable(size_t i, std::string_view op_type) const {
  if (!has(i) || lowering_.readers_[node_.inputs[i]] != 1) return kNoValue;
  const auto found = lowering_.producer_.find(inputs_[i]);
  if (found == lowering_.producer_.end()) return kNoValue;
  const Step& step = lowering_.program_->steps[found->second];
  return step.kind == op_type && step.inputs.size() == 1 ? step.inputs[0] : kNoValue;
}

void Binder::absorb(size_t i, std::string_view op_type) {
  const ValueId source = absorbable(i, op_type);
  lowering_.program_->steps[lowering_.producer_[inputs_[i]]].op.reset();
  inputs_[i] = source;
}

Step Binder::step(std::unique_ptr<const Op> op) const {
  Step step{.op = std::move(op),
            .kind = node_.op_type,
            .inputs = inputs_,
            .outputs = outputs_,
            .row_wise = row_wise_,
            .by_session = stateful_,
            .may_throw = may_throw_};
  step.outputs.insert(step.outputs.end(), temporaries_.begin(), temporaries_.end());
  return step;
}

bool Binder::is_foldable() const {
  const auto constant = [&](ValueId id) {
    const Program& program = *lowering_.program_;
    return id == kNoValue || program.buffers[program.values[id].buffer].home == Buffer::Home::kConstant;
  };
  return !stateful_ && temporaries_.empty() && std::all_of(inputs_.begin(), inputs_.end(), constant);
}

void Binder::limit_ids(int64_t rows) { lowering_.id_limit_ = std::min(lowering_.id_limit_, rows); }

void Binder::check_attributes() const {
  for (const Attribute& attribute : node_.attributes) {
    if (!known_attributes_.contains(attribute.name)) {
      unsupported("has the attribute '" + std::string(attribute.name) +
                  "', which this runtime does not know");
    }
  }
}

}  // namespace allmem
