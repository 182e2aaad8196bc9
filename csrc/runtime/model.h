// A loaded model: immutable, memory-mapped, shared between sessions and threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "graph/choices.h"
#include "graph/program.h"
#include "platform/mapped_file.h"
#include "runtime/checksums.h"

namespace allmem {

struct StateInfo {
  std::string name;  // "layers.0.memory.weight.gate.state"
  std::vector<int64_t> shape;
  size_t bytes;
};

struct ModelInfo {
  int64_t vocab_size = 0;
  int64_t window = 0, sinks = 0, chunk = 0, layers = 0;  // as chosen; chunk is 0 when the memory is off
  MemoryUse memory = MemoryUse::kOn;
  std::string chosen;  // "window 32, sinks 4, chunk 16, memory on"; empty when all is as the file says
  std::string
      quantization;    // "none", "int8", "mixed", "int4"; like the names, what the file says as valid UTF-8
  bool exact = false;  // computes in float32 throughout: loaded so, or its weights are float32
  size_t weight_bytes = 0;
  size_t state_bytes = 0;  // of one session, without scratch
  std::vector<StateInfo> states;
};

// Takes one line, without newline, on what is done with a model. Called on any thread that uses the model; it
// must not throw.
using Log = std::function<void(const std::string& line)>;

class Model {
 public:
  // `path`: a model directory, or a .onnx file. Throws Error (kNotFound, kIo, kBadModel, kUnsupported,
  // kOutOfMemory; kInvalidArgument for choices that the model does not allow). The files stay mapped: replace
  // them (rename another over them) if you must, but never change or truncate them while the model is in use.
  // Compares files with SHA256SUMS as `check` says.
  static std::shared_ptr<const Model> load(const std::string& path, const Choices& choices = {}, Log log = {},
                                           Check check = Check::kSmall);
  // The same from pieces in memory: "model.onnx" and the data files that it names.
  static std::shared_ptr<const Model> load(std::vector<std::unique_ptr<MappedFile>> pieces,
                                           const Choices& choices = {}, Log log = {},
                                           Check check = Check::kSmall);

  const ModelInfo& info() const { return info_; }
  const Program& program() const { return *program_; }
  void say(const std::string& line) const {
    if (log_) log_(line);
  }

 private:
  Model() = default;
  static std::shared_ptr<const Model> make(std::shared_ptr<const onnx::Model> source, const Choices& choices,
                                           Log log);
  ModelInfo info_;
  Log log_;
  std::unique_ptr<const Program> program_;
};

}  // namespace allmem
