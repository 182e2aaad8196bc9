// What a session's state holds as numbers, in whatever form it is kept, and what older snapshots hold of it
// in another.
#pragma once

#include <cstddef>
#include <span>

#include "graph/program.h"
#include "platform/wipe.h"

namespace allmem {

// A copy of a state as float32, of the bytes that a session keeps for it. Not of StateForm::kOwn.
WipedVector<float> state_values(const Program& program, const State& state, std::span<const std::byte> kept);

// Until format 4 of snapshots what is a difference in 8 bits now was float32. Bytes of a state and of all,
// then:
size_t older_bytes(const State& state);
size_t older_state_bytes(const Program& program);
bool has_older_form(const Program& program);  // whether they are kept otherwise now
// Fills `state` with what `older`, of older_state_bytes(), says in the older form.
void take_older_state(const Program& program, std::span<const std::byte> older, std::span<std::byte> state);

}  // namespace allmem
