// Bytes as a list of C API calls with hostile arguments on a living model: every call answers with a status.
// cmake/capi_coverage.cmake checks that no function is missing here.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "../cpp/tiny_model.h"
#include "allmem/allmem.h"
#include "fuzz.h"

using allmem::fuzz::Input;

namespace {

void check(int32_t status) {
  if (status < 0 || status > ALLMEM_CONFLICT || status == ALLMEM_INTERNAL) std::abort();
  if (status != ALLMEM_OK && *allmem_last_error() == '\0') std::abort();
}

// A host without threads.
void run_tasks(allmem_task task, void* argument, size_t count, void*) {
  for (size_t i = 0; i < count; ++i) task(argument, i);
}

// What lives from one input to the next; the session begins each as new.
struct World {
  allmem_model* model = nullptr;
  allmem_session* session = nullptr;
  allmem_session* second = nullptr;  // for batches
  allmem_batch* batch = nullptr;
  allmem_decoder* decoder = nullptr;
  size_t vocab_size = 0;
  std::vector<uint8_t> snapshot;
  std::string directory;  // of this process, for the memory file

  World() {
    if (allmem_model_load(ALLMEM_BUNDLED_MODEL, nullptr, &model) != ALLMEM_OK) std::abort();
    allmem_session_options options;
    allmem_session_options_init(&options);
    options.threads = 1;
    if (allmem_session_create(model, &options, &session) != ALLMEM_OK) std::abort();
    if (allmem_session_create(model, &options, &second) != ALLMEM_OK) std::abort();
    if (allmem_batch_create(model, &options, &batch) != ALLMEM_OK) std::abort();
    if (allmem_decoder_create(model, &decoder) != ALLMEM_OK) std::abort();
    allmem_model_info info;
    info.struct_size = sizeof info;
    if (allmem_model_get_info(model, &info) != ALLMEM_OK) std::abort();
    vocab_size = static_cast<size_t>(info.vocab_size);
    directory = (std::filesystem::temp_directory_path() / "allmem_fuzz.XXXXXX").string();
    if (mkdtemp(directory.data()) == nullptr) std::abort();
  }
  ~World() {
    allmem_decoder_free(decoder);
    allmem_batch_free(batch);
    allmem_session_free(second);
    allmem_session_free(session);
    allmem_model_free(model);
    std::filesystem::remove_all(directory);
  }
};

// --- Arguments -------------------------------------------------------------------------------------------

template <class T>
size_t struct_size(Input& input) {
  return input.byte() % 8 == 7 ? input.number<size_t>() : sizeof(T);
}

std::string text(Input& input, size_t most = 255) {
  const auto bytes = input.bytes(input.byte() % (most + 1));
  return {bytes.begin(), bytes.end()};
}

std::vector<int32_t> ids(Input& input, size_t count) {
  std::vector<int32_t> list(count);
  for (int32_t& id : list) id = input.number<int16_t>();
  return list;
}

float number(Input& input) {
  const auto bits = input.number<uint32_t>();
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

allmem_sampling sampling_from(Input& input) {
  allmem_sampling sampling;
  allmem_sampling_init(&sampling);
  if (input.byte() % 2 == 0) sampling.temperature = number(input);
  if (input.byte() % 2 == 0) sampling.top_k = input.number<int32_t>();
  if (input.byte() % 2 == 0) sampling.top_p = number(input);
  if (input.byte() % 2 == 0) sampling.min_p = number(input);
  if (input.byte() % 2 == 0) sampling.repetition_penalty = number(input);
  if (input.byte() % 2 == 0) sampling.repetition_window = input.number<int32_t>() % 4096;
  sampling.max_tokens = input.byte() % 4;
  if (input.byte() % 4 == 0) sampling.speculate = input.byte() % 3;
  static allmem_logit_bias bias;
  bias = {input.number<int16_t>(), number(input)};
  sampling.logit_bias = &bias;
  sampling.logit_bias_count = input.byte() % 8 == 0;
  return sampling;
}

// Stops at once, cancels, or goes on: a text that is stopped may be resumed, saved, marked.
struct Listener {
  allmem_session* session;
  uint8_t how;
  static int32_t hear(const char* piece, size_t size, void* user_data) {
    const auto& self = *static_cast<const Listener*>(user_data);
    if (piece[size] != '\0') std::abort();
    if (self.how % 4 == 2) check(allmem_session_cancel(self.session));
    return self.how % 2;
  }
};

// --- Text ------------------------------------------------------------------------------------------------

void tokenize(World& world, Input& input) {
  const std::string what = text(input);
  const int32_t special = input.byte();
  std::vector<int32_t> out(input.byte());
  size_t count = 0;
  check(allmem_tokenize(world.model, what.data(), what.size(), special, out.data(), out.size(), &count));
}

void detokenize(World& world, Input& input) {
  std::vector<int32_t> list(4);
  for (int32_t& id : list) id = input.number<int32_t>() >> (input.byte() % 32);
  list.resize(input.byte() % 5);
  std::vector<char> out(input.byte());
  size_t count = 0;
  check(allmem_detokenize(world.model, list.data(), list.size(), out.data(), out.size(), &count));
}

void push(World& world, Input& input) {
  const char* piece = nullptr;
  size_t size = 0;
  check(allmem_decoder_push(world.decoder, input.number<int16_t>(), &piece, &size));
}

void flush(World& world, Input&) {
  const char* piece = nullptr;
  size_t size = 0;
  check(allmem_decoder_flush(world.decoder, &piece, &size));
}

void chat_encode(World& world, Input& input) {
  const std::string role = text(input, 9), content = text(input);
  const allmem_message message = {input.byte() % 4 == 0 ? role.c_str() : "user", content.c_str()};
  const int32_t continues = input.byte();
  std::vector<int32_t> out(input.byte());
  size_t count = 0;
  check(allmem_chat_encode(world.model, &message, 1, continues, out.data(), out.size(), &count));
}

void token_is_stop(World& world, Input& input) {
  int32_t is_stop = 0;
  check(allmem_token_is_stop(world.model, input.number<int32_t>() >> (input.byte() % 32), &is_stop));
}

void token_bytes(World& world, Input& input) {
  std::vector<char> out(input.byte());
  size_t count = 0;
  int32_t special = 0;
  check(allmem_token_bytes(world.model, input.number<int16_t>(), out.data(), out.size(), &count, &special));
}

void names(World&, Input& input) {
  if (*allmem_status_name(input.number<int32_t>() >> (input.byte() % 32)) == '\0') std::abort();
  if (*allmem_version() == '\0' || *allmem_isa() == '\0') std::abort();
  if (allmem_abi_version() != ALLMEM_ABI_VERSION) std::abort();
}

// --- Models ----------------------------------------------------------------------------------------------

// A model in pieces: a small one's, changed, and what the input says, from memory or from an open file.
void load_pieces(World&, Input& input) {
  static const std::string onnx = allmem::test::TinyModel().builder().build();
  static const std::string tokenizer =
      R"({"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false},"decoder":{"type":"ByteLevel"},
"model":{"vocab":{"a":0,"b":1,"c":2},"merges":[]}})";
  std::string whole = onnx + tokenizer + text(input);
  const bool from_file = input.byte() % 2 == 0;
  for (int changes = input.byte() % 3; changes > 0; --changes)
    whole[input.number<uint16_t>() % whole.size()] = static_cast<char>(input.byte());
  const int fd = from_file ? memfd_create("allmem_fuzz", 0) : -1;
  if (from_file && (fd < 0 || write(fd, whole.data(), whole.size()) != static_cast<ssize_t>(whole.size())))
    std::abort();

  const size_t own = onnx.size() + tokenizer.size();
  const std::string name = text(input, 9);
  std::vector<allmem_file> files = {
      {"model.onnx", whole.data(), onnx.size(), fd, 0},
      {"tokenizer.json", whole.data() + onnx.size(), tokenizer.size(), fd, onnx.size()},
      {input.byte() % 2 == 0 ? "generation_config.json" : name.c_str(), whole.data() + own,
       whole.size() - own, fd, own}};
  files.resize(3 - input.byte() % 3);
  if (from_file && input.byte() % 4 == 0) {
    allmem_file& file = files[input.byte() % files.size()];
    file.offset = input.number<uint64_t>() >> (input.byte() % 64);
    file.size = input.number<size_t>() >> (input.byte() % 64);
    if (input.byte() % 2 == 0) file.fd = -1;
  }
  allmem_model_options options;
  allmem_model_options_init(&options);
  options.exact = input.byte() % 4 == 0 ? input.number<int8_t>() : 0;
  allmem_model* model = nullptr;
  const int32_t status = from_file ? allmem_model_load_fds(files.data(), files.size(), &options, &model)
                                   : allmem_model_load_memory(files.data(), files.size(), &options, &model);
  check(status);
  if ((status == ALLMEM_OK) != (model != nullptr)) std::abort();
  if (status == ALLMEM_OK) {
    allmem_model_info info;
    info.struct_size = struct_size<allmem_model_info>(input);
    check(allmem_model_get_info(model, &info));
    allmem_sampling sampling;
    sampling.struct_size = struct_size<allmem_sampling>(input);
    check(allmem_model_get_sampling(model, &sampling));
    allmem_session_options session_options;
    allmem_session_options_init(&session_options);
    session_options.threads = input.number<int32_t>() >> (input.byte() % 32);
    if (session_options.threads % 2 != 0) session_options.run_tasks = run_tasks;
    allmem_session* session = nullptr;
    check(allmem_session_create(model, &session_options, &session));
    allmem_model_free(model);
    if (session != nullptr) check(allmem_session_prefill(session, ids(input, 3).data(), 3, nullptr));
    allmem_session_free(session);
  }
  if (fd >= 0) close(fd);
}

// --- Sessions --------------------------------------------------------------------------------------------

void prefill(World& world, Input& input) {
  const auto list = ids(input, input.byte() % 40);
  size_t read = 0;
  check(allmem_session_prefill(world.session, list.data(), list.size(), &read));
}

void forward(World& world, Input& input) {
  const auto list = ids(input, input.byte() % 5);
  std::vector<float> out(input.byte() % 4 == 0 ? input.number<uint16_t>() : list.size() * world.vocab_size);
  size_t count = 0;
  check(allmem_session_forward(world.session, list.data(), list.size(), out.data(), out.size(), &count));
}

void logits(World& world, Input& input) {
  std::vector<float> out(input.number<uint16_t>() % 4097);
  size_t count = 0;
  check(allmem_session_logits(world.session, out.data(), out.size(), &count));
}

void set_sampling(World& world, Input& input) {
  const allmem_sampling sampling = sampling_from(input);
  check(allmem_session_set_sampling(world.session, &sampling));
}

void sample(World& world, Input&) {
  int32_t id = 0;
  if (allmem_session_sample(world.session, &id) == ALLMEM_OK) {
    check(allmem_session_prefill(world.session, &id, 1, nullptr));
  }
}

void chat(World& world, Input& input) {
  const allmem_sampling sampling = sampling_from(input);
  const std::string content = text(input);
  const allmem_message message = {"user", content.c_str()};
  Listener listener{world.session, input.byte()};
  check(allmem_session_chat(world.session, &message, 1, &sampling, &Listener::hear, &listener, nullptr));
}

void generate(World& world, Input& input) {
  allmem_sampling sampling = sampling_from(input);
  const std::string ending = text(input, 3);
  const char* const stop[] = {ending.c_str()};
  sampling.stop = stop;
  sampling.stop_count = input.byte() % 2;
  const auto list = ids(input, input.byte() % 4);
  Listener listener{world.session, input.byte()};
  allmem_generation generation;
  generation.struct_size = struct_size<allmem_generation>(input);
  check(allmem_session_generate(world.session, list.data(), list.size(), &sampling, &Listener::hear,
                                &listener, &generation));
}

void resume(World& world, Input& input) {
  Listener listener{world.session, static_cast<uint8_t>(input.byte() | 1)};
  check(allmem_session_resume(world.session, &Listener::hear, &listener, nullptr));
}

void freeze(World& world, Input& input) { check(allmem_session_freeze(world.session, input.byte() % 2)); }

void reset_or_wipe(World& world, Input& input) {
  check(input.byte() % 2 == 0 ? allmem_session_reset(world.session) : allmem_session_wipe(world.session));
}

void clone(World& world, Input&) {
  allmem_session* copy = nullptr;
  const int32_t status = allmem_session_clone(world.session, &copy);
  check(status);
  if (status != ALLMEM_OK) return;
  allmem_session_free(world.session);  // the copy takes its place
  world.session = copy;
}

void cancel(World& world, Input&) { check(allmem_session_cancel(world.session)); }

void mark(World& world, Input& input) { check(allmem_session_mark(world.session, input.number<uint32_t>())); }

void undo(World& world, Input&) { check(allmem_session_undo(world.session)); }

void inspect(World& world, Input& input) {
  allmem_layer_memory memory;
  memory.struct_size = sizeof memory;
  check(allmem_session_inspect(world.session, input.number<int8_t>(), &memory));
}

void get_info(World& world, Input& input) {
  allmem_session_info info;
  info.struct_size = struct_size<allmem_session_info>(input);
  check(allmem_session_get_info(world.session, &info));
}

// --- Snapshots -------------------------------------------------------------------------------------------

void save(World& world, Input& input) {
  const std::string note = text(input);
  std::vector<uint8_t> snapshot;
  size_t count = 0;
  check(allmem_session_save(world.session, note.data(), note.size(), nullptr, 0, &count));
  if (count == 0) return;
  snapshot.resize(count - input.byte() / 255);  // now and then a byte short
  const int32_t status =
      allmem_session_save(world.session, note.data(), note.size(), snapshot.data(), snapshot.size(), &count);
  check(status);
  if (status == ALLMEM_OK) world.snapshot = std::move(snapshot);
}

void load(World& world, Input& input) {
  std::vector<uint8_t>& snapshot = world.snapshot;
  if (!snapshot.empty()) snapshot[input.number<uint32_t>() % snapshot.size()] ^= input.byte();
  check(allmem_session_load(world.session, snapshot.data(), snapshot.size()));
}

void save_and_load_file(World& world, Input& input) {
  static const char* const kNames[] = {"/memory", "", "/missing/memory", "/\xFF"};
  const std::string path = world.directory + kNames[input.byte() % std::size(kNames)];
  const std::string note = text(input);
  const int32_t saved = allmem_session_save_file(world.session, note.data(), note.size(), path.c_str());
  check(saved);
  const int32_t loaded = allmem_session_load_file(world.session, path.c_str());
  check(loaded);
  allmem_snapshot_info info;
  info.struct_size = sizeof info;
  const int32_t seen = allmem_snapshot_inspect_file(path.c_str(), &info, nullptr, 0, nullptr);
  check(seen);
  if (saved == ALLMEM_OK && (loaded != ALLMEM_OK || seen != ALLMEM_OK)) std::abort();
}

void snapshot_inspect(World& world, Input& input) {
  const auto bytes = input.byte() % 2 == 0 ? std::span<const uint8_t>(world.snapshot) : input.bytes(255);
  allmem_snapshot_info info;
  info.struct_size = struct_size<allmem_snapshot_info>(input);
  std::vector<char> note(input.byte());
  size_t count = 0;
  check(allmem_snapshot_inspect(bytes.data(), bytes.size(), &info, note.data(), note.size(), &count));
}

// To a callback that may give up, and from one that may give something else the second time.
void save_to_and_load_from(World& world, Input& input) {
  struct Stream {
    std::vector<uint8_t> bytes;
    size_t pieces;  // until it gives up
    uint64_t wrong;
    uint8_t change;
    int reads = 0;
  } stream{{}, input.byte(), input.number<uint32_t>(), input.byte()};
  const auto write = [](const void* bytes, size_t size, void* to) -> int32_t {
    auto& stream = *static_cast<Stream*>(to);
    const auto* begin = static_cast<const uint8_t*>(bytes);
    stream.bytes.insert(stream.bytes.end(), begin, begin + size);
    return stream.pieces-- == 0;
  };
  const auto read = [](void* bytes, size_t size, uint64_t offset, void* from) -> int32_t {
    auto& stream = *static_cast<Stream*>(from);
    if (offset > stream.bytes.size() || size > stream.bytes.size() - offset) std::abort();
    std::memcpy(bytes, stream.bytes.data() + offset, size);
    if (stream.wrong >= offset && stream.wrong - offset < size)
      static_cast<uint8_t*>(bytes)[stream.wrong - offset] ^= stream.change;
    return ++stream.reads == 200;
  };
  const std::string note = text(input);
  check(allmem_session_save_to(world.session, note.data(), note.size(), write, &stream));
  check(allmem_session_load_from(world.session, stream.bytes.size(), read, &stream));
}

void delete_file(World& world, Input& input) {
  check(
      allmem_snapshot_delete_file((world.directory + (input.byte() % 2 == 0 ? "/memory" : "/\xFF")).c_str()));
}

void text_prefix(World& world, Input& input) {
  std::vector<int32_t> out(input.byte());
  size_t count = 0;
  check(allmem_text_prefix(world.model, out.data(), out.size(), &count));
}

void hooks(World& world, Input& input) {
  const auto look = [](allmem_token_score token, const allmem_token_score* best, size_t count, void*) {
    if (count > 0 && !(token.logprob <= best[0].logprob)) std::abort();
  };
  const auto filter = [](int32_t, uint32_t* allowed, size_t words, void* user_data) {
    for (size_t i = 0; i < words; ++i)
      allowed[i] &= static_cast<uint32_t>(reinterpret_cast<uintptr_t>(user_data));
  };
  check(allmem_session_set_token_callback(world.session, input.number<uint16_t>(),
                                          input.byte() % 4 ? +look : nullptr, nullptr));
  check(allmem_session_set_token_filter(world.session, input.byte() % 2 ? +filter : nullptr,
                                        reinterpret_cast<void*>(uintptr_t{input.number<uint32_t>()})));
}

void init_sized(World&, Input& input) {
  const size_t size = input.byte() % 128;
  std::vector<uint8_t> room(128);  // a program may know a longer struct than the library
  allmem_sampling_init_sized(reinterpret_cast<allmem_sampling*>(room.data()), size);
  allmem_model_options_init_sized(reinterpret_cast<allmem_model_options*>(room.data()), size);
  allmem_session_options_init_sized(reinterpret_cast<allmem_session_options*>(room.data()), size);
  for (size_t i = size; i < room.size(); ++i) {
    if (room[i] != 0) std::abort();
  }
}

// Of the two sessions, in either order, one twice or of nobody.
void batch_prefill(World& world, Input& input) {
  allmem_session* const sessions[] = {world.session, world.second, nullptr};
  std::vector<std::vector<int32_t>> lists;
  std::vector<allmem_batch_item> items(input.byte() % 4);
  for (allmem_batch_item& item : items) {
    lists.push_back(ids(input, input.byte() % 4));
    item.session = sessions[input.byte() % 3];
    item.id_count = lists.back().size();
  }
  for (size_t i = 0; i < items.size(); ++i) items[i].ids = lists[i].data();
  check(allmem_batch_prefill(world.batch, items.data(), items.size()));
  for (const allmem_batch_item& item : items) {
    if (item.status == ALLMEM_INTERNAL || item.read > item.id_count) std::abort();
  }
  if (input.byte() % 4 == 0) check(allmem_batch_wipe(world.batch));
}

// A call's place is its number in corpus/capi: new ones go to the end.
constexpr void (*kCalls[])(World&, Input&) = {tokenize,
                                              detokenize,
                                              push,
                                              flush,
                                              chat_encode,
                                              prefill,
                                              logits,
                                              set_sampling,
                                              sample,
                                              chat,
                                              freeze,
                                              reset_or_wipe,
                                              save,
                                              load,
                                              resume,
                                              mark,
                                              undo,
                                              inspect,
                                              forward,
                                              generate,
                                              clone,
                                              cancel,
                                              get_info,
                                              token_is_stop,
                                              names,
                                              load_pieces,
                                              save_and_load_file,
                                              snapshot_inspect,
                                              token_bytes,
                                              save_to_and_load_from,
                                              delete_file,
                                              text_prefix,
                                              hooks,
                                              init_sized,
                                              batch_prefill};

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static World world;
  check(allmem_session_reset(world.session));
  check(allmem_session_reset(world.second));
  check(allmem_session_set_token_callback(world.session, 0, nullptr, nullptr));
  check(allmem_session_set_token_filter(world.session, nullptr, nullptr));
  world.snapshot.clear();
  Input input(data, size);
  for (int calls = 0; !input.empty() && calls < 16; ++calls) {
    kCalls[input.byte() % std::size(kCalls)](world, input);
  }
  return 0;
}
