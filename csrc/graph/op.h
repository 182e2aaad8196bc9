// What an operator is at run time, and what it sees.
#pragma once

#include <cstddef>
#include <cstdint>

namespace allmem {

struct Kernels;
struct Program;
struct Step;
class ThreadPool;

// Below about this many multiply-adds a loop is done before other threads have noticed it.
inline constexpr size_t kWorthSharing = 32768;

// An input or output of a step: where it lies, for one session.
struct Operand {
  std::byte* data = nullptr;
  size_t token_bytes = 0;  // of one token; 0 when T is not in the shape
  bool head = false;       // holds only the rows whose logits are asked for
};

// One step on one block of tokens, or on some of their rows. Pointers are valid for the call.
struct RunContext {
  const Kernels& kernels;
  ThreadPool& pool;
  const Program& program;
  const Step* step = nullptr;
  size_t tokens = 0;      // T of this step
  size_t skipped = 0;     // tokens of the block before those, in a step that runs for the last rows only
  size_t first = 0;       // rows of this step's outputs before those at hand, when others do them
  uint64_t position = 0;  // tokens before the block
  bool frozen = false;    // the memory is not to be written
  bool fresh = false;     // the state was set from outside: derived data must be computed anew
  const Operand* operands = nullptr;  // of all steps (Step::first_operand)
  std::byte* derived_data = nullptr;
  float* scratch_data = nullptr;

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

 private:
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
  // Floats of scratch memory that each worker needs for a block of `tokens`.
  virtual size_t scratch_floats(const Kernels& /*kernels*/, size_t /*tokens*/) const { return 0; }
  // This, if it is one.
  virtual const Loop* as_loop() const { return nullptr; }
};

// An operator that is a loop over independent items, so that threads can share its items with those of other
// loops.
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
