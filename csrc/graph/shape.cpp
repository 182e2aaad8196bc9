// Shapes with one symbolic dimension.
#include "graph/shape.h"

#include <algorithm>

namespace allmem {

std::string to_string(const Shape& shape) {
  std::string text = "[";
  for (const int64_t dim : shape) {
    if (text.size() > 1) text += ", ";
    text += dim == kTokens ? "T" : std::to_string(dim);
  }
  return text + "]";
}

size_t elements(const Shape& shape, size_t begin, size_t end, size_t tokens) {
  size_t count = 1;
  for (size_t i = begin; i < end; ++i) count *= shape[i] == kTokens ? tokens : static_cast<size_t>(shape[i]);
  return count;
}

Extent::Extent(const Shape& shape) : fixed_(elements(shape, 1)), tokens_(has_tokens(shape)) {}

std::optional<size_t> token_axis(const Shape& shape) {
  const auto found = std::find(shape.begin(), shape.end(), kTokens);
  if (found == shape.end()) return std::nullopt;
  return static_cast<size_t>(found - shape.begin());
}

bool token_major(const Shape& shape) {
  for (const int64_t dim : shape) {
    if (dim != 1) return dim == kTokens;
  }
  return false;
}

}  // namespace allmem
