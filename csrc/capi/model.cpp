// Loading models: from a directory, from memory, from open files.
#include <filesystem>
#include <system_error>

#include "capi/handles.h"
#include "platform/file_path.h"
#include "platform/is_there.h"
#include "platform/mapped_file.h"
#include "runtime/snapshot.h"

namespace allmem::capi {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxFiles = 64;
constexpr size_t kMaxConfigBytes = size_t{16} << 20;

std::optional<ChatFormat> chat_format(const FindFile& find,
                                      const std::shared_ptr<const Tokenizer>& tokenizer) {
  const auto file = find("chat_format.json");
  if (!file) return ChatFormat::chatml(tokenizer);
  if (file->bytes().size() > kMaxConfigBytes) {
    throw Error(ErrorCode::kBadModel, file->path() + " is larger than 16 MiB, which no such file needs.");
  }
  const auto bytes = file->bytes();
  const std::string_view json(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  return ChatFormat::from_json(json, file->path(), tokenizer);
}

allmem_model* make_model(std::shared_ptr<const Model> model, const FindFile& find) {
  auto shared = std::make_shared<SharedModel>();
  shared->text = read_model_text(find, model->info().vocab_size);
  if (shared->text.tokenizer) shared->chat = chat_format(find, shared->text.tokenizer);
  shared->fingerprint = fingerprint(*model);
  shared->model = std::move(model);
  return new allmem_model{std::move(shared)};
}

allmem_model_options default_model_options() {
  allmem_model_options options = {};
  options.struct_size = sizeof options;
  options.sinks = -1;
  return options;
}

allmem_model_options read_options(const allmem_model_options* given) {
  return given == nullptr ? default_model_options() : taken(given, "options", default_model_options());
}

Choices choices_of(const allmem_model_options& options) {
  require(options.exact == 0 || options.exact == 1, "`exact` of the options is neither 0 nor 1.");
  require(options.memory >= ALLMEM_MEMORY_ON && options.memory <= ALLMEM_MEMORY_OFF,
          "`memory` of the options is none of allmem_memory.");
  Choices choices(options.exact != 0 ? Precision::kExact : Precision::kFast);
  if (options.window != 0) choices.window = options.window;
  if (options.sinks != -1) choices.sinks = options.sinks;
  if (options.chunk != 0) choices.chunk = options.chunk;
  choices.memory = static_cast<MemoryUse>(options.memory);
  return choices;
}

Check check_of(const allmem_model_options& options) {
  require(options.check >= ALLMEM_CHECK_NONE && options.check <= ALLMEM_CHECK_ALL,
          "`check` of the options is none of allmem_check.");
  return options.check == ALLMEM_CHECK_ALL    ? Check::kAll
         : options.check == ALLMEM_CHECK_NONE ? Check::kNone
                                              : Check::kSmall;
}

Log log_of(const allmem_model_options& options) {
  if (options.log == nullptr) return {};
  return [log = options.log, user_data = options.user_data](const std::string& line) {
    try {
      call_host(log, line.c_str(), user_data);
    } catch (const Error&) {  // a log that fails is no reason for anything else to fail
    }
  };
}

// The pieces by name, each mapped or borrowed anew at every use.
template <class Open>
int32_t load_pieces(const allmem_file* files, size_t count, const allmem_model_options* given,
                    allmem_model** model, const Open& open) {
  require(model != nullptr, "`model` is NULL; it receives the model.");
  require(files != nullptr && count > 0 && count <= kMaxFiles,
          "A model in pieces has 1 to 64 files, one of them named model.onnx.");
  const allmem_model_options options = read_options(given);
  const Choices choices = choices_of(options);
  const Check check = check_of(options);
  for (const allmem_file& file : std::span(files, count))
    require(file.name != nullptr, "A file's name is NULL.");
  const FindFile find = [&](const std::string& name) -> std::unique_ptr<MappedFile> {
    for (const allmem_file& file : std::span(files, count)) {
      if (std::string_view(file.name) == name) return open(file);
    }
    return nullptr;
  };
  std::vector<std::unique_ptr<MappedFile>> pieces;
  for (const allmem_file& file : std::span(files, count)) pieces.push_back(open(file));
  *model = make_model(Model::load(std::move(pieces), choices, log_of(options), check), find);
  return ALLMEM_OK;
}

}  // namespace
}  // namespace allmem::capi

using namespace allmem;
using namespace allmem::capi;

void allmem_model_options_init_sized(allmem_model_options* options, size_t struct_size) {
  init(options, struct_size, default_model_options());
}

void(allmem_model_options_init)(allmem_model_options* options) {
  allmem_model_options_init_sized(options, first_size<allmem_model_options>());
}

int32_t allmem_model_load(const char* path, const allmem_model_options* given, allmem_model** model) {
  return guarded([&] {
    require(model != nullptr, "`model` is NULL; it receives the model.");
    const std::string where = path_input(path);
    const allmem_model_options options = read_options(given);
    auto loaded = Model::load(where, choices_of(options), log_of(options), check_of(options));
    std::error_code ignored;
    const fs::path directory =
        fs::is_directory(to_path(where), ignored) ? to_path(where) : to_path(where).parent_path();
    const FindFile find = [&](const std::string& name) -> std::unique_ptr<MappedFile> {
      const fs::path file = directory / name;
      if (!is_there(file)) return nullptr;
      return std::make_unique<MappedFile>(to_name(file));
    };
    *model = make_model(std::move(loaded), find);
    return ALLMEM_OK;
  });
}

int32_t allmem_model_load_memory(const allmem_file* files, size_t file_count,
                                 const allmem_model_options* options, allmem_model** model) {
  return guarded([&] {
    return load_pieces(files, file_count, options, model, [](const allmem_file& file) {
      const auto bytes = input(static_cast<const std::byte*>(file.data), file.size, "A file's data");
      return std::make_unique<MappedFile>(file.name, bytes);
    });
  });
}

int32_t allmem_model_load_fds(const allmem_file* files, size_t file_count,
                              const allmem_model_options* options, allmem_model** model) {
  return guarded([&] {
    return load_pieces(files, file_count, options, model, [](const allmem_file& file) {
      return std::make_unique<MappedFile>(file.name, file.fd, file.offset, file.size);
    });
  });
}

void allmem_model_free(allmem_model* model) { delete model; }

int32_t allmem_model_get_info(const allmem_model* model, allmem_model_info* info) {
  return guarded([&] {
    require(model != nullptr, "The model is NULL.");
    check_struct(info, "info");
    const ModelInfo& facts = model->shared->model->info();
    *info = {};
    info->struct_size = sizeof *info;
    info->vocab_size = static_cast<int32_t>(facts.vocab_size);
    info->layers = static_cast<int32_t>(facts.layers);
    info->window = static_cast<int32_t>(facts.window);
    info->sinks = static_cast<int32_t>(facts.sinks);
    info->chunk = static_cast<int32_t>(facts.chunk);
    info->has_tokenizer = model->shared->text.tokenizer != nullptr;
    info->has_chat = model->shared->chat && model->shared->chat->usable();
    info->weight_bytes = facts.weight_bytes;
    info->state_bytes = facts.state_bytes;
    info->fingerprint = model->shared->fingerprint;
    facts.quantization.copy(info->quantization, sizeof info->quantization - 1);
    return ALLMEM_OK;
  });
}

int32_t allmem_model_get_sampling(const allmem_model* model, allmem_sampling* sampling) {
  return guarded([&] {
    require(model != nullptr, "The model is NULL.");
    give(sampling_of(model->shared->text.defaults), sampling, "sampling");
    return ALLMEM_OK;
  });
}
