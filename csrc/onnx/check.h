// Steps of reading a model that have a file of their own.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "onnx/model.h"

namespace allmem::onnx {

// Where a tensor's data lies outside model.onnx, as written in the file.
struct ExternalLocation {
  std::string_view location, offset, length;  // offset and length are decimal numbers, or empty
};

// The bytes that `where` names, in a file mapped into model.files. `size` is what the tensor needs.
// Throws Error when the path leaves the model's directory or the range leaves the file.
std::span<const std::byte> external_bytes(Model& model, const std::string& tensor,
                                          const ExternalLocation& where, size_t size);

// Names are unique, graph inputs and outputs are well-formed, every node reads what exists before it.
void check_graph(const Model& model);

}  // namespace allmem::onnx
