// What a session's state holds as numbers, and what older snapshots hold of it in another form.
#include "runtime/state_values.h"

#include <algorithm>
#include <cstring>

#include "kernels/values_q8.h"

namespace allmem {

namespace {

bool is_difference(const State& state) { return state.form == StateForm::kDifference; }

// Calls use(values, first, count, base) for each item of the first axis of a difference: what is kept of it
// in `kept`, and which of the state's numbers it is.
template <class Use>
void each_item(const State& state, std::byte* kept, const Use& use) {
  const auto items = static_cast<size_t>(state.shape.front());
  const size_t count = elements(state.shape, 1) / items;
  for (size_t i = 0; i < items; ++i) {
    const float* base = state.initial.empty() ? nullptr : state.initial.data() + i * count;
    use(ValuesQ8(kept + i * ValuesQ8::bytes(count), count), i * count, base);
  }
}

}  // namespace

WipedVector<float> state_values(const Program& program, const State& state, std::span<const std::byte> kept) {
  WipedVector<float> values(elements(state.shape, 1));
  if (is_difference(state)) {
    each_item(state, const_cast<std::byte*>(kept.data()),  // which load() only reads
              [&](const ValuesQ8& item, size_t first, const float* base) {
                item.load(*program.kernels, base, values.data() + first);
              });
  } else if (!values.empty()) {
    std::memcpy(values.data(), kept.data(), values.size() * sizeof(float));
  }
  return values;
}

size_t older_bytes(const State& state) {
  return is_difference(state) ? elements(state.shape, 1) * sizeof(float) : state.bytes;
}

size_t older_state_bytes(const Program& program) {
  size_t bytes = program.state_bytes;
  for (const State& state : program.states)
    bytes = bytes - align_up(state.bytes) + align_up(older_bytes(state));
  return bytes;
}

bool has_older_form(const Program& program) { return std::ranges::any_of(program.states, is_difference); }

void take_older_state(const Program& program, std::span<const std::byte> older, std::span<std::byte> state) {
  WipedVector<float> values, scratch(ValuesQ8::scratch_floats());
  size_t end = 0;  // of what is there of `state`
  const auto copy = [&](size_t bytes) {
    std::ranges::copy(older.first(bytes), state.begin() + static_cast<ptrdiff_t>(end));
    older = older.subspan(bytes);
    end += bytes;
  };
  for (const State& part : program.states) {
    if (!is_difference(part)) {
      copy(align_up(part.bytes));
      continue;
    }
    values.resize(elements(part.shape, 1));
    std::memcpy(values.data(), older.data(), values.size() * sizeof(float));
    each_item(part, state.data() + end, [&](const ValuesQ8& item, size_t first, const float* base) {
      item.store(*program.kernels, values.data() + first, base, scratch.data());
    });
    older = older.subspan(align_up(older_bytes(part)));
    std::ranges::fill(state.subspan(end + part.bytes, align_up(part.bytes) - part.bytes), std::byte{0});
    end += align_up(part.bytes);
  }
  copy(older.size());  // what operators keep
}

}  // namespace allmem
