// The angles of the rotary position embedding.
#pragma once

#include <cstdint>
#include <vector>

#include "graph/op.h"

namespace allmem::ops {

// Computes cos and sin [T, D/2] of min(position, last_position) * inv_freq[i], times `scale`, for the tokens
// of a block. Exact (to float rounding) at any position below 2^53.
class RopeAngles : public Op {
 public:
  RopeAngles(std::vector<float> inv_freq, float scale, uint64_t last_position)
      : inv_freq_(std::move(inv_freq)), scale_(scale), last_position_(last_position) {}
  void run(const RunContext& ctx) const override;

 private:
  std::vector<float> inv_freq_;
  float scale_;
  uint64_t last_position_;
};

// scale * cos and sin of position * inv_freq.
void rope_angle(uint64_t position, float inv_freq, float scale, float& cosine, float& sine);

}  // namespace allmem::ops
