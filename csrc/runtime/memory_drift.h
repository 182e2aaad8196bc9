// How much a session has learned.
#pragma once

#include <cstdint>

#include "runtime/session.h"

namespace allmem {

// How far the fast weights of `layer` are from where the model begins: ||W - W_0|| / ||W_0||, Frobenius norms
// over all matrices and heads. 0 when nothing was written. Throws kInvalidArgument: no such layer; kPoisoned.
double memory_drift(const Session& session, int64_t layer);

}  // namespace allmem
