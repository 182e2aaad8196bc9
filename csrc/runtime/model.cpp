// Loading a model: find the file, read it, lower it, and say what it is.
#include "runtime/model.h"

#include <charconv>
#include <filesystem>
#include <limits>
#include <map>
#include <new>
#include <string_view>
#include <system_error>

#include "graph/lower.h"
#include "kernels/kernels.h"
#include "ops/registry.h"
#include "platform/error.h"
#include "platform/file_path.h"
#include "platform/printable.h"
#include "runtime/isa.h"

namespace allmem {

namespace {

constexpr std::string_view kFormat = "1";  // docs/format.md

std::string model_file(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code error;
  if (path.empty() || path.find('\0') != std::string::npos || !fs::exists(to_path(path), error)) {
    throw Error(ErrorCode::kNotFound,
                printable("There is no model '" + path + "': no such file or directory."));
  }
  if (!fs::is_directory(to_path(path), error)) return path;
  const fs::path file = to_path(path) / "model.onnx";
  if (!fs::exists(file, error)) {
    throw Error(ErrorCode::kNotFound,
                printable("The directory '" + path + "' holds no model.onnx, so it is not a model."));
  }
  return to_name(file);
}

class Metadata {
 public:
  explicit Metadata(const onnx::Model& model) : path_(model.path) {
    for (const auto& [key, value] : model.metadata) entries_.emplace(key, value);
    const std::string_view format = text("allmem.format");
    if (format.empty())
      fail(ErrorCode::kBadModel, "lacks the metadata 'allmem.format': it is not an AllMem model");
    if (format != kFormat) {
      fail(ErrorCode::kUnsupported, "has the format '" + std::string(format) +
                                        "', but this version reads format " + std::string(kFormat) +
                                        "; update allmem-edge or export the model again");
    }
  }

  std::string_view text(std::string_view key) const {
    const auto found = entries_.find(key);
    return found == entries_.end() ? std::string_view() : found->second;
  }

  int64_t number(std::string_view key) const {
    const std::string_view digits = text(key);
    int64_t value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (digits.empty()) return 0;
    if (error != std::errc() || end != digits.data() + digits.size() || value < 0 ||
        value > std::numeric_limits<int32_t>::max()) {
      fail(ErrorCode::kBadModel,
           "says '" + std::string(digits) + "' for '" + std::string(key) + "', which is no count");
    }
    return value;
  }

 private:
  [[noreturn]] void fail(ErrorCode code, const std::string& problem) const {
    throw Error(code, printable("The model file '" + path_ + "' " + problem + "."));
  }

  std::string path_;
  std::map<std::string_view, std::string_view> entries_;
};

ModelInfo describe(const onnx::Model& model, const Program& program) {
  const Metadata metadata(model);
  ModelInfo info;
  info.vocab_size = program.vocab_size;
  info.window = metadata.number("allmem.window");
  info.sinks = metadata.number("allmem.sinks");
  info.chunk = metadata.number("allmem.chunk");
  info.layers = metadata.number("allmem.layers");
  info.quantization = printable(metadata.text("allmem.quantization"));
  info.state_bytes = program.state_bytes;
  for (const onnx::Tensor& tensor : model.initializers) {
    if (!tensor.name.ends_with(".state")) info.weight_bytes += tensor.data.size();
  }
  for (const State& state : program.states) {
    info.states.push_back({printable(state.name), state.shape, state.bytes});
  }
  return info;
}

}  // namespace

std::shared_ptr<const Model> Model::make(std::shared_ptr<const onnx::Model> source, Precision precision,
                                         Log log) {
  std::shared_ptr<Model> model(new Model());
  model->program_ = lower(source, find_op, best_kernels(), precision);
  model->info_ = describe(*source, *model->program_);
  model->info_.exact = precision == Precision::kExact;
  model->log_ = std::move(log);
  model->say("loaded: " + std::to_string(model->info_.layers) + " layers, window " +
             std::to_string(model->info_.window) + ", weights " + model->info_.quantization + ", kernels " +
             isa_name());
  return model;
}

std::shared_ptr<const Model> Model::load(const std::string& path, Precision precision, Log log) {
  try {
    return make(onnx::read_model(model_file(path)), precision, std::move(log));
  } catch (const std::bad_alloc&) {
    throw Error(ErrorCode::kOutOfMemory,
                printable("The model '" + path + "' needs more memory than there is."));
  }
}

std::shared_ptr<const Model> Model::load(std::vector<std::unique_ptr<MappedFile>> pieces, Precision precision,
                                         Log log) {
  try {
    return make(onnx::read_model(std::move(pieces)), precision, std::move(log));
  } catch (const std::bad_alloc&) {
    throw Error(ErrorCode::kOutOfMemory, "The model needs more memory than there is.");
  }
}

}  // namespace allmem
