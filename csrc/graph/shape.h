// Shapes with one symbolic dimension: T, the number of tokens of a call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace allmem {

inline constexpr int64_t kTokens = -1;  // T, where a dimension would be

inline constexpr size_t kMaxRank = 8;  // of every value of a Program, so that operators can use arrays

using Shape = std::vector<int64_t>;

// "[T, 64]"
std::string to_string(const Shape& shape);

// The product of dimensions [begin, end) with T = tokens. The shapes of a Program cannot overflow it.
size_t elements(const Shape& shape, size_t begin, size_t end, size_t tokens);
inline size_t elements(const Shape& shape, size_t tokens) { return elements(shape, 0, shape.size(), tokens); }

// The number of elements of a shape, for operators that ask in every call.
class Extent {
 public:
  explicit Extent(const Shape& shape);
  size_t operator()(size_t tokens) const { return tokens_ ? fixed_ * tokens : fixed_; }

 private:
  size_t fixed_;
  bool tokens_;
};

// The axis of T; nothing when the shape has none.
std::optional<size_t> token_axis(const Shape& shape);
inline bool has_tokens(const Shape& shape) { return token_axis(shape).has_value(); }

// T comes first (dimensions of 1 apart), so that the rows of one token lie together.
bool token_major(const Shape& shape);

}  // namespace allmem
