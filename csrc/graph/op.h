// What an operator is at run time, and what it sees.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace allmem {

struct Kernels;
struct Program;
struct Step;
class ThreadPool;

// Below about this many multiply-adds a loop is done before other threads have noticed it.
inline constexpr size_t kWorthSharing = 32768;

// Tokens of a speculative segment at most: the first, and a draft of what follows.
inline constexpr size_t kMostSpeculative = 8;

// What the bytes of a value are a part of.
enum class Home : uint8_t { kConstant, kArena, kState, kIds, kPosition, kLogits };
using Homes =
    std::array<std::byte*, 6>;  // where each begins, by number; constants have addresses of their own

// An input or output of a step: where it lies, for every session.
struct Operand {
  std::byte* constant = nullptr;  // where a constant lies; null: at `offset` from its home
  size_t offset = 0;
  size_t token_bytes = 0;  // of one token; 0 when T is not in the shape
  Home home = Home::kConstant;
  bool head = false;  // holds only the rows whose logits are asked for
};

// The tokens of a block that one session reads, and what it goes on from.
struct Segment {
  size_t begin = 0, tokens = 0;  // which of the block's they are
  uint64_t position = 0;         // tokens of the session before them
  bool frozen = false;           // its memory is not to be written
  bool fresh = false;            // its state was set from outside: derived data must be computed anew
  bool speculative = false;      // all but the first may be taken back: Op::take_back()
  std::byte* state = nullptr;
  std::byte* derived = nullptr;  // what operators compute from the state
};

// One step on one block of tokens, or on some of their rows. Pointers are valid for the call.
struct RunContext {
  const Kernels& kernels;
  ThreadPool& pool;
  const Program& program;
  const Step* step = nullptr;
  size_t tokens = 0;   // T of this step
  size_t skipped = 0;  // tokens of the block before those, in a step that runs for the last rows only
  size_t first = 0;    // rows of this step's outputs before those at hand, when others do them
  std::span<const Segment> segments = {};  // of the block
  const Operand* operands = nullptr;       // of all steps (Step::first_operand)
  Homes homes = {};
  float* scratch_data = nullptr;
  // For a step that runs for each session by itself (Step::by_session): as in its segment.
  uint64_t position = 0;
  bool frozen = false, fresh = false, speculative = false;
  std::byte* derived_data = nullptr;

  template <class T = float>
  const T* in(size_t i) const {
    return reinterpret_cast<const T*>(input_address(i));
  }
  template <class T = float>
  T* out(size_t i) const {
    return reinterpret_cast<T*>(output_address(i));
  }
  template <class T = float>
  T* derived(size_t offset) const {
    return reinterpret_cast<T*>(derived_data + offset);
  }
  float* scratch(size_t worker) const;
  bool has(size_t i) const;
  RunContext of(const Segment& segment) const;  // the step on its tokens alone

 private:
  std::byte* address(const Operand& operand) const;
  std::byte* input_address(size_t i) const;
  std::byte* output_address(size_t i) const;
};

class Loop;

// Immutable once made: sessions of one model share it.
class Op {
 public:
  virtual ~Op() = default;
  // Allocates nothing. Throws Error only where data decides (an index out of range).
  virtual void run(const RunContext& ctx) const = 0;
  // Makes what is pending in its states part of them, for ctx.tokens = 0.
  virtual void settle(const RunContext& /*ctx*/) const {}
  // How many tokens a speculative segment may have, at least 1, that begins at ctx.position (ctx.tokens is
  // 0): so many that each gets the same bits as in a block of its own, and all but the first can be taken
  // back.
  virtual size_t most_speculative(const RunContext& /*ctx*/) const { return kMostSpeculative; }
  // Takes back the last `count` tokens of the speculative segment at hand, which was the last to be read:
  // byte for byte, its states are as if there had been only the tokens before.
  virtual void take_back(const RunContext& /*ctx*/, size_t /*count*/) const {}
  // Floats of scratch memory that each worker needs for a block of `tokens`.
  virtual size_t scratch_floats(const Kernels& /*kernels*/, size_t /*tokens*/) const { return 0; }
  // This, if it is one.
  virtual const Loop* as_loop() const { return nullptr; }
};

// An operator that is a loop over independent items, so that threads can share its items with those of other
// loops. One that runs for each session by itself has as many items, of the same grain, for every one.
class Loop : public Op {
 public:
  struct Items {
    size_t count, grain;  // a thread takes multiples of `grain`
    size_t work;          // multiply-adds of one
  };
  virtual Items items(const RunContext& ctx) const = 0;
  virtual void run_items(const RunContext& ctx, size_t begin, size_t end, size_t worker) const = 0;

  void run(const RunContext& ctx) const final;
  const Loop* as_loop() const final { return this; }
};

}  // namespace allmem
