// The angles of the rotary position embedding, in double precision: float32 `position * inv_freq` is off by
// whole turns at position 10^7, which models notice.
#include "ops/rope.h"

#include <algorithm>
#include <cmath>

#include "platform/fused.h"

namespace allmem::ops {

void rope_angle(uint64_t position, float inv_freq, float scale, float& cosine, float& sine) {
  const double p = static_cast<double>(position), frequency = inv_freq;
  const double angle = p * frequency;
  double c = std::cos(angle), s = std::sin(angle);  // the C library reduces any double exactly
  const double rest = product_rest(p, frequency);   // what rounding took from the product; 0 below 2^29
  if (rest != 0) {
    const double c_rest = std::cos(rest), s_rest = std::sin(rest);
    const double turned = c * c_rest - s * s_rest;
    s = s * c_rest + c * s_rest;
    c = turned;
  }
  cosine = static_cast<float>(c * double{scale});
  sine = static_cast<float>(s * double{scale});
}

void RopeAngles::run(const RunContext& ctx) const {
  float* cosine = ctx.out(0);
  float* sine = ctx.out(1);
  for (size_t t = 0; t < ctx.tokens; ++t) {
    const uint64_t position = std::min(ctx.position + t, last_position_);
    for (const float frequency : inv_freq_) rope_angle(position, frequency, scale_, *cosine++, *sine++);
  }
}

}  // namespace allmem::ops
