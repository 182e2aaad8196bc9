// A model lowered to a flat list of operators bound to memory: what a session runs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "graph/op.h"
#include "graph/shape.h"
#include "onnx/model.h"
#include "platform/aligned_buffer.h"

namespace allmem {

using ValueId = uint32_t;
inline constexpr ValueId kNoValue = ~ValueId{0};

// How exactly a program computes what the file says.
enum class Precision {
  kFast,   // activations that meet quantised weights have 8 bits
  kExact,  // float32 everywhere: what the operators' function bodies define
};

// Where addresses have 32 bits, no limit is above what they reach.
inline constexpr bool kWideAddresses = sizeof(size_t) >= sizeof(uint64_t);

// Tokens of a block at most: enough to make a weight's trip from memory worthwhile.
inline constexpr size_t kMaxBlock = 128;

// Where the bytes of values live. Views (Reshape and the like) share the buffer of what they view.
struct Buffer {
  using Home = allmem::Home;
  Home home = Home::kArena;
  const std::byte* constant = nullptr;  // kConstant: the bytes
  size_t bytes = 0;                     // for a block of `Program::block` tokens
  size_t offset = 0;                    // kArena, kState: from the start of that allocation
  size_t token_bytes = 0;               // bytes of one token; 0 when T is not in the shape
  bool head = false;                    // holds only the rows whose logits are asked for
};

struct Value {
  std::string name;
  onnx::DataType type = onnx::DataType::kFloat;
  Shape shape;
  uint32_t buffer = 0;
  int state = -1;             // index of the state that this is, before or after its update
  bool updated = false;       // after
  ValueId scales = kNoValue;  // of 8-bit codes that a DequantizeLinear made float32 and left as they were
};

// One operator. Steps run in order.
struct Step {
  std::unique_ptr<const Op> op;
  std::string_view kind;         // the operator type
  std::vector<ValueId> inputs;   // kNoValue where an optional one is absent
  std::vector<ValueId> outputs;  // then the temporaries
  size_t first_operand = 0;      // number of the first input among the operands of all steps
  bool row_wise = false;         // row t of the outputs depends on row t of the inputs only
  bool by_session = false;  // runs for each session by itself: it has a state, or depends on the position
  bool may_throw = false;   // where what it computes with decides
  bool head = false;        // leads only to the logits: runs for the rows that are asked for
};

// Steps that threads go through without waiting for each other in between.
struct Stage {
  enum class Kind {
    kStep,        // one step, which spreads its own work
    kRows,        // row-wise steps: a thread takes some rows through all of them
    kSideBySide,  // loops that do not need each other's results: threads share all their items
  };
  Kind kind = Kind::kStep;
  size_t begin = 0, end = 0;  // steps
};

// Runs it for ctx.tokens tokens of a block.
void run_stage(const Stage& stage, const RunContext& ctx);

// Adds the inputs and outputs of a step.
void add_operands(const Program& program, const Step& step, std::vector<Operand>& operands);

// How a state is kept. Its number is what a snapshot says.
enum class StateForm : uint8_t {
  kFloat32 = 0,
  kOwn = 1,         // as its operator and the kernels keep it
  kDifference = 2,  // from where it starts, in 8 bits: kernels/values_q8.h for each item of the first axis
};

struct State {
  std::string name;  // "layers.0.memory.weight.gate.state"
  Shape shape;
  size_t offset = 0;  // in the state allocation, aligned to 64 bytes
  size_t bytes = 0;
  StateForm form = StateForm::kFloat32;
  std::span<const float> initial;  // empty: zeros
};

struct Program {
  std::shared_ptr<const onnx::Model> source;  // keeps the mapped weights alive
  const Kernels* kernels = nullptr;           // what all of it is planned for, and runs with
  Precision precision = Precision::kFast;     // always kExact where no weights are quantised
  std::vector<AlignedBuffer> folded;          // constants computed at load
  std::deque<Value> values;
  std::vector<Buffer> buffers;
  std::vector<Step> steps;
  std::vector<Stage> stages;      // all steps, in order
  size_t head_stages = 0;         // how many of them, the last ones, are of the head
  std::vector<Operand> operands;  // of all steps
  bool shares_blocks = false;     // a block may hold tokens of several sessions
  std::vector<State> states;
  ValueId logits = kNoValue;

  size_t weight_bytes = 0;    // of all constants in the file, without where states start
  size_t block = 0;           // tokens that one run of the steps takes at most
  size_t state_bytes = 0;     // all states, one allocation: `states` first, then what operators keep
  size_t arena_bytes = 0;     // all activations of a block
  size_t derived_bytes = 0;   // per session, beside the state (row scales, what drafted tokens overwrote)
  size_t scratch_floats = 0;  // per worker thread
  int64_t vocab_size = 0;     // columns of the logits
};

}  // namespace allmem
