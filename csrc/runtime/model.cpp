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
#include "platform/is_there.h"
#include "platform/printable.h"
#include "runtime/isa.h"

namespace allmem {

namespace {

constexpr std::string_view kModelFormat = "1";  // docs/format.md

std::string model_file(const std::string& path) {
  namespace fs = std::filesystem;
  if (path.empty() || path.find('\0') != std::string::npos || !is_there(to_path(path))) {
    throw Error(ErrorCode::kNotFound,
                printable("There is no model '" + path + "': no such file or directory."));
  }
  std::error_code error;
  if (!fs::is_directory(to_path(path), error)) return path;
  const fs::path file = to_path(path) / "model.onnx";
  if (!is_there(file)) {
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
    if (format != kModelFormat) {
      fail(ErrorCode::kUnsupported, "has the format '" + std::string(format) +
                                        "', but this version reads format " + std::string(kModelFormat) +
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
      fail(ErrorCode::kBadModel, "says '" + std::string(digits) + "' for '" + std::string(key) +
                                     "', which is not a whole number from 0 to 2147483647");
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

// Refuses what no model allows, or this one does not.
void check(const Choices& choices, const ModelInfo& info) {
  const auto refuse = [](const std::string& sentence) { throw Error(ErrorCode::kInvalidArgument, sentence); };
  const auto check_range = [&](const char* name, const std::optional<int64_t>& value, int64_t least) {
    if (value && (*value < least || *value > kMaxWindow)) {
      refuse("The " + std::string(name) + " chosen is " + std::to_string(*value) + " tokens; it must be " +
             std::to_string(least) + " to " + std::to_string(kMaxWindow) + ".");
    }
  };
  check_range("window", choices.window, 1);
  check_range("number of sinks", choices.sinks, 0);
  check_range("chunk", choices.chunk, 1);
  if (choices.memory != MemoryUse::kOn) {
    if (choices.chunk) refuse("A chunk can be chosen only with the memory on: nothing else writes it.");
  } else if ((choices.window || choices.chunk) && info.chunk > info.window) {
    refuse("The window of " + std::to_string(info.window) + " tokens is shorter than the chunk of " +
           std::to_string(info.chunk) +
           ", so tokens would leave it before the memory has learned them; choose a chunk of at most the "
           "window, or the memory off.");
  }
}

// The file's facts, and what was chosen instead of some.
ModelInfo describe(const onnx::Model& model, const Choices& choices) {
  const Metadata metadata(model);
  ModelInfo info;
  const int64_t window = metadata.number("allmem.window"), sinks = metadata.number("allmem.sinks"),
                chunk = metadata.number("allmem.chunk");
  info.layers = metadata.number("allmem.layers");
  info.quantization = printable(metadata.text("allmem.quantization"));
  info.window = choices.window.value_or(window);
  info.sinks = choices.sinks.value_or(sinks);
  info.chunk = choices.memory == MemoryUse::kOff ? 0 : choices.chunk.value_or(chunk);
  info.memory = choices.memory;
  check(choices, info);
  if (info.window != window || info.sinks != sinks || info.chunk != chunk || info.memory != MemoryUse::kOn) {
    info.chosen = "window " + std::to_string(info.window) + ", sinks " + std::to_string(info.sinks) +
                  ", chunk " + std::to_string(info.chunk) + ", memory " + name_of(info.memory);
  }
  return info;
}

// What follows from them.
void add_sizes(const Program& program, ModelInfo& info) {
  info.exact = program.precision == Precision::kExact;
  info.vocab_size = program.vocab_size;
  info.state_bytes = program.state_bytes;
  info.weight_bytes = program.weight_bytes;
  for (const State& state : program.states) {
    info.states.push_back({printable(state.name), state.shape, state.bytes});
  }
}

}  // namespace

std::shared_ptr<const Model> Model::make(std::shared_ptr<const onnx::Model> source, const Choices& choices,
                                         Log log) {
  std::shared_ptr<Model> model(new Model());
  model->info_ = describe(*source, choices);
  model->program_ = lower(source, find_op, best_kernels(), choices);
  add_sizes(*model->program_, model->info_);
  model->log_ = std::move(log);
  model->say(
      "loaded: " + std::to_string(model->info_.layers) + " layers, " +
      (model->info_.chosen.empty() ? "window " + std::to_string(model->info_.window) : model->info_.chosen) +
      ", weights " + model->info_.quantization + ", kernels " + isa_name());
  return model;
}

std::shared_ptr<const Model> Model::load(const std::string& path, const Choices& choices, Log log,
                                         Check check) {
  try {
    const std::string file = model_file(path);
    const FindFile find = [directory = to_path(file).parent_path()](const std::string& name) {
      const std::filesystem::path beside = directory / to_path(name);
      return is_there(beside) ? std::make_shared<const MappedFile>(to_name(beside)) : nullptr;
    };
    check_files(find, check, /*complete=*/true);
    return make(onnx::read_model(file), choices, std::move(log));
  } catch (const std::bad_alloc&) {
    throw Error(ErrorCode::kOutOfMemory,
                printable("The model '" + path + "' needs more memory than there is."));
  }
}

std::shared_ptr<const Model> Model::load(std::vector<std::unique_ptr<MappedFile>> pieces,
                                         const Choices& choices, Log log, Check check) {
  try {
    const FindFile find = [&](const std::string& name) -> std::shared_ptr<const MappedFile> {
      for (const auto& piece : pieces) {
        if (piece->path() == name) return {std::shared_ptr<void>(), piece.get()};  // borrowed
      }
      return nullptr;
    };
    check_files(find, check, /*complete=*/false);
    return make(onnx::read_model(std::move(pieces)), choices, std::move(log));
  } catch (const std::bad_alloc&) {
    throw Error(ErrorCode::kOutOfMemory, "The model needs more memory than there is.");
  }
}

}  // namespace allmem
