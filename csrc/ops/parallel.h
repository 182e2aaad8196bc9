// Spreading an operator's loop over the session's threads.
#pragma once

#include <algorithm>

#include "graph/op.h"
#include "platform/thread_pool.h"

namespace allmem::ops {

// Calls body(begin, end, worker) on slices of [0, n), in multiples of `grain`; `work` is the cost of one
// item.
template <class Body>
void parallel(const RunContext& ctx, size_t n, size_t grain, size_t work, Body&& body) {
  if (n * std::max<size_t>(work, 1) < kWorthSharing) {
    body(size_t{0}, n, size_t{0});
  } else {
    ctx.pool.parallel(n, grain, body);
  }
}

}  // namespace allmem::ops
