// Every function of the C API, with each of its arguments in turn replaced by every hostile value of its
// type: a status and a sentence, never a crash, and a refused call changes nothing. arguments_test.cpp says
// which status; cmake/capi_coverage.cmake checks that no function is missing here.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "../bad_models.h"
#include "allmem/allmem.h"

namespace {

constexpr size_t kRoom = size_t{4} << 20;  // bytes of each buffer: more than a snapshot of the bundled model

// What the calls work on. Buffers are as large as any call may make them.
struct World {
  allmem_model* model = nullptr;
  allmem_session* session = nullptr;
  allmem_decoder* decoder = nullptr;
  allmem_batch* batch = nullptr;
  std::vector<char> text = std::vector<char>(kRoom), snapshot = std::vector<char>(kRoom);
  std::vector<int32_t> ids = std::vector<int32_t>(kRoom / sizeof(int32_t), 5);
  std::vector<float> logits = std::vector<float>(kRoom / sizeof(float));
  size_t snapshot_size = 0;

  World() {
    REQUIRE(allmem_model_load(ALLMEM_BUNDLED_MODEL, nullptr, &model) == ALLMEM_OK);
    allmem_session_options options;
    allmem_session_options_init(&options);
    options.threads = 1;
    REQUIRE(allmem_session_create(model, &options, &session) == ALLMEM_OK);
    REQUIRE(allmem_decoder_create(model, &decoder) == ALLMEM_OK);
    REQUIRE(allmem_batch_create(model, &options, &batch) == ALLMEM_OK);
    REQUIRE(allmem_session_save(session, nullptr, 0, snapshot.data(), snapshot.size(), &snapshot_size) ==
            ALLMEM_OK);
  }
  ~World() {
    allmem_batch_free(batch);
    allmem_decoder_free(decoder);
    allmem_session_free(session);
    allmem_model_free(model);
  }
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  uint64_t position() const {
    allmem_session_info info;
    info.struct_size = sizeof info;
    REQUIRE(allmem_session_get_info(session, &info) == ALLMEM_OK);
    return info.position;
  }
};

// Storage of variants that are pointed to; it outlives the calls.
template <class T>
const T* keep(const T& value) {
  static std::vector<std::unique_ptr<T>> kept;
  kept.push_back(std::make_unique<T>(value));
  return kept.back().get();
}

template <class T>
constexpr bool has_struct_size = requires(T* value) {
  value->struct_size;
};

// Hostile values in place of `good`.
template <class T>
std::vector<T> hostile_values(T good) {
  using Pointee = std::remove_cv_t<std::remove_pointer_t<T>>;
  if constexpr (std::is_same_v<T, size_t>) {
    return {0, SIZE_MAX, SIZE_MAX - 1, SIZE_MAX / 2 + 1};
  } else if constexpr (std::is_integral_v<T>) {
    return {T{-1}, std::numeric_limits<T>::max(), std::numeric_limits<T>::min()};
  } else if constexpr (!std::is_pointer_v<T> || std::is_function_v<Pointee>) {
    return {nullptr};  // a callback
  } else if constexpr (std::is_same_v<T, const char*>) {
    static const std::string long_text(100'000, 'x');
    return {nullptr, "", "\xFF\xFE", long_text.c_str()};
  } else if constexpr (std::is_same_v<T, const int32_t*>) {
    static const std::vector<int32_t> negative(16, -1), huge(16, std::numeric_limits<int32_t>::max());
    return {nullptr, negative.data(), huge.data()};
  } else if constexpr (std::is_same_v<T, const allmem_message*>) {
    return {nullptr, keep<allmem_message>({nullptr, "x"}), keep<allmem_message>({"user", nullptr}),
            keep<allmem_message>({"\xFF", "\xFF"}), keep<allmem_message>({"", ""})};
  } else if constexpr (std::is_same_v<T, const allmem_file*>) {
    return {nullptr,
            keep<allmem_file>({nullptr, "x", 1, -1, 0}),
            keep<allmem_file>({"model.onnx", nullptr, 1, -1, 0}),
            keep<allmem_file>({"model.onnx", "x", 0, -1, 0}),
            keep<allmem_file>({"model.onnx", "x", SIZE_MAX, 0, UINT64_MAX}),
            keep<allmem_file>({"\xFF", "x", 1, std::numeric_limits<int>::max(), 0})};
  } else if constexpr (has_struct_size<Pointee> && std::is_const_v<std::remove_pointer_t<T>>) {
    std::vector<T> values{nullptr};
    for (const size_t size : {size_t{0}, size_t{1}, sizeof(Pointee) - 1, sizeof(Pointee) + 1, SIZE_MAX}) {
      Pointee changed = *good;
      changed.struct_size = size;
      values.push_back(keep(changed));
    }
    if constexpr (std::is_same_v<Pointee, allmem_sampling>) {
      for (const float number : {std::nanf(""), INFINITY, -INFINITY, -1.0f, 3e38f, 0.0f}) {
        for (float allmem_sampling::*field :
             {&allmem_sampling::temperature, &allmem_sampling::top_p, &allmem_sampling::min_p,
              &allmem_sampling::repetition_penalty}) {
          Pointee changed = *good;
          changed.*field = number;
          values.push_back(keep(changed));
        }
      }
      for (const int32_t number : hostile_values(int32_t{})) {
        for (int32_t allmem_sampling::*field :
             {&allmem_sampling::top_k, &allmem_sampling::repetition_window, &allmem_sampling::speculate}) {
          Pointee changed = *good;
          changed.*field = number;
          values.push_back(keep(changed));
        }
      }
      Pointee changed = *good;
      changed.max_tokens = std::numeric_limits<int64_t>::min();
      values.push_back(keep(changed));
      changed = *good;
      changed.stop_count = SIZE_MAX;
      values.push_back(keep(changed));
      for (const allmem_logit_bias& bias : {allmem_logit_bias{-1, 0.0f}, allmem_logit_bias{0, std::nanf("")},
                                            allmem_logit_bias{INT32_MAX, 1.0f}}) {
        for (const size_t length : {size_t{0}, size_t{1}, SIZE_MAX}) {
          changed = *good;
          changed.logit_bias = keep(bias);
          changed.logit_bias_count = length;
          values.push_back(keep(changed));
        }
      }
    } else if constexpr (std::is_same_v<Pointee, allmem_session_options>) {
      for (const int32_t threads : hostile_values(int32_t{})) {
        Pointee changed = *good;
        changed.threads = threads;
        values.push_back(keep(changed));
      }
    } else if constexpr (std::is_same_v<Pointee, allmem_model_options>) {
      for (const int32_t exact : hostile_values(int32_t{})) {
        Pointee changed = *good;
        changed.exact = exact;
        values.push_back(keep(changed));
      }
    }
    return values;
  } else if constexpr (std::is_same_v<Pointee, allmem_batch_item>) {
    static std::vector<std::unique_ptr<allmem_batch_item>> written;
    std::vector<T> values{nullptr};
    const allmem_batch_item of_nobody = {nullptr, good->ids, good->id_count, 0, 0, 0};
    for (const allmem_batch_item& item : {of_nobody, allmem_batch_item{}}) {
      written.push_back(std::make_unique<allmem_batch_item>(item));
      values.push_back(written.back().get());
    }
    for (const int32_t* ids : hostile_values(good->ids)) {
      written.push_back(std::make_unique<allmem_batch_item>(*good));
      written.back()->ids = ids;
      values.push_back(written.back().get());
    }
    for (const size_t count : hostile_values(size_t{})) {
      written.push_back(std::make_unique<allmem_batch_item>(*good));
      written.back()->id_count = count;
      values.push_back(written.back().get());
    }
    return values;
  } else if constexpr (has_struct_size<Pointee>) {  // a struct that is written: its size is read first
    static std::vector<std::unique_ptr<Pointee>> written;
    std::vector<T> values{nullptr};
    for (const size_t size : {size_t{0}, size_t{1}, sizeof(Pointee) + 1, SIZE_MAX}) {
      written.push_back(std::make_unique<Pointee>());
      written.back()->struct_size = size;
      values.push_back(written.back().get());
    }
    return values;
  } else {
    return {nullptr};  // handles, buffers and out-parameters
  }
}

template <class T>
void free_made(T&&) {}
void free_made(allmem_model** made) {
  if (made != nullptr) allmem_model_free(std::exchange(*made, nullptr));
}
void free_made(allmem_session** made) {
  if (made != nullptr) allmem_session_free(std::exchange(*made, nullptr));
}
void free_made(allmem_batch** made) {
  if (made != nullptr) allmem_batch_free(std::exchange(*made, nullptr));
}
void free_made(allmem_decoder** made) {
  if (made != nullptr) allmem_decoder_free(std::exchange(*made, nullptr));
}

// What a call may have done whose argument of this place had its hostile value of this number. No template:
// three hundred pairs of a function and an argument would each compile it.
void check_answer(const World& world, uint64_t before, size_t argument, size_t number, int32_t status) {
  const std::string sentence = allmem_last_error();
  CAPTURE(argument);
  CAPTURE(number);
  CAPTURE(sentence);
  CHECK(status >= ALLMEM_OK);
  CHECK(status <= ALLMEM_CONFLICT);
  CHECK(status != ALLMEM_INTERNAL);
  if (status != ALLMEM_OK) {
    CHECK(sentence.ends_with("."));
    CHECK(world.position() == before);
  }
}

// Calls `function` with good arguments, which must work, and with each replaced by hostile values.
template <class... Parameters>
void hostile(const World& world, const char* name, int32_t (*function)(Parameters...),
             std::type_identity_t<Parameters>... good) {
  CAPTURE(name);
  const auto call = [&](std::tuple<Parameters...> arguments) {
    const int32_t status = std::apply(function, arguments);
    std::apply([](auto... each) { (free_made(each), ...); }, arguments);
    return status;
  };
  const std::tuple<Parameters...> arguments(good...);
  const int32_t normal = call(arguments);
  CAPTURE(allmem_last_error());
  CHECK(normal == ALLMEM_OK);
  const auto replace = [&]<size_t i>(std::integral_constant<size_t, i>) {
    size_t number = 0;
    for (const auto& value : hostile_values(std::get<i>(arguments))) {
      std::tuple<Parameters...> changed = arguments;
      std::get<i>(changed) = value;
      const uint64_t before = world.position();
      const int32_t status = call(changed);
      check_answer(world, before, i, number++, status);
    }
  };
  [&]<size_t... i>(std::index_sequence<i...>) { (replace(std::integral_constant<size_t, i>{}), ...); }
  (std::index_sequence_for<Parameters...>{});
}

template <class T>
T sized() {
  T value{};
  value.struct_size = sizeof value;
  return value;
}

int32_t go_on(const char*, size_t, void*) { return 0; }
int32_t stop(const char*, size_t, void*) { return 1; }
void look(allmem_token_score, const allmem_token_score*, size_t, void*) {}
void allow_all(int32_t, uint32_t*, size_t, void*) {}

}  // namespace

#define HOSTILE(function, ...) hostile(world, #function, function, __VA_ARGS__)

TEST_CASE("no function crashes on hostile arguments, and none that refuses changes the session") {
  World world;
  size_t count = 0;
  int32_t number = 0;
  const char* piece = nullptr;
  const allmem_message message = {"user", "Hello!"};
  const char* const note = "note";
  allmem_sampling sampling;
  allmem_sampling_init(&sampling);
  sampling.max_tokens = 1;
  allmem_model_options model_options;
  allmem_model_options_init(&model_options);
  allmem_session_options session_options;
  allmem_session_options_init(&session_options);
  session_options.threads = 1;
  auto model_info = sized<allmem_model_info>();
  auto session_info = sized<allmem_session_info>();
  auto snapshot_info = sized<allmem_snapshot_info>();
  auto layer_memory = sized<allmem_layer_memory>();
  auto generation = sized<allmem_generation>();
  auto own_sampling = sized<allmem_sampling>();
  allmem_model* other_model = nullptr;
  allmem_session* other_session = nullptr;
  allmem_decoder* other_decoder = nullptr;
  allmem_batch* other_batch = nullptr;
  allmem_batch_item item = {world.session, world.ids.data(), 3, 0, 0, 0};
  const std::string model_bytes = allmem::test::complete().build();
  const allmem_file in_memory = {"model.onnx", model_bytes.data(), model_bytes.size(), -1, 0};
  const allmem::test::TempDir directory;
  const int fd = ::open(directory.write("model.onnx", model_bytes).c_str(), O_RDONLY);
  const allmem_file in_file = {"model.onnx", nullptr, model_bytes.size(), fd, 0};
  const std::filesystem::path here = std::filesystem::current_path();
  std::filesystem::current_path(directory.path());  // where odd names become files

  HOSTILE(allmem_model_load, ALLMEM_BUNDLED_MODEL, &model_options, &other_model);
  HOSTILE(allmem_model_load_memory, &in_memory, 1, &model_options, &other_model);
  if (!ALLMEM_ON_WINDOWS) HOSTILE(allmem_model_load_fds, &in_file, 1, &model_options, &other_model);
  HOSTILE(allmem_model_get_info, world.model, &model_info);
  HOSTILE(allmem_model_get_sampling, world.model, &own_sampling);
  HOSTILE(allmem_tokenize, world.model, "Hello!", ALLMEM_NUL_TERMINATED, 0, world.ids.data(),
          world.ids.size(), &count);
  HOSTILE(allmem_detokenize, world.model, world.ids.data(), 3, world.text.data(), world.text.size(), &count);
  HOSTILE(allmem_text_prefix, world.model, world.ids.data(), world.ids.size(), &count);
  HOSTILE(allmem_token_is_stop, world.model, 5, &number);
  HOSTILE(allmem_token_bytes, world.model, 5, world.text.data(), world.text.size(), &count, &number);
  HOSTILE(allmem_decoder_create, world.model, &other_decoder);
  HOSTILE(allmem_decoder_push, world.decoder, 5, &piece, &count);
  HOSTILE(allmem_decoder_flush, world.decoder, &piece, &count);
  HOSTILE(allmem_chat_encode, world.model, &message, 1, 0, world.ids.data(), world.ids.size(), &count);
  HOSTILE(allmem_session_create, world.model, &session_options, &other_session);
  HOSTILE(allmem_session_clone, world.session, &other_session);
  HOSTILE(allmem_session_prefill, world.session, world.ids.data(), 3, &count);
  HOSTILE(allmem_session_forward, world.session, world.ids.data(), 3, world.logits.data(),
          world.logits.size(), &count);
  HOSTILE(allmem_session_logits, world.session, world.logits.data(), world.logits.size(), &count);
  HOSTILE(allmem_session_set_sampling, world.session, &sampling);
  HOSTILE(allmem_session_sample, world.session, &number);
  HOSTILE(allmem_session_set_token_callback, world.session, 3, look, nullptr);
  HOSTILE(allmem_session_set_token_filter, world.session, allow_all, nullptr);
  HOSTILE(allmem_session_generate, world.session, world.ids.data(), 3, &sampling, go_on, nullptr,
          &generation);
  HOSTILE(allmem_session_chat, world.session, &message, 1, &sampling, go_on, nullptr, &generation);
  sampling.max_tokens = 512;
  REQUIRE(allmem_session_chat(world.session, &message, 1, &sampling, stop, nullptr, nullptr) == ALLMEM_OK);
  HOSTILE(allmem_session_resume, world.session, stop, nullptr, &generation);
  HOSTILE(allmem_session_cancel, world.session);
  HOSTILE(allmem_session_mark, world.session, 1);
  HOSTILE(allmem_session_undo, world.session);
  HOSTILE(allmem_session_freeze, world.session, 0);
  HOSTILE(allmem_session_get_info, world.session, &session_info);
  HOSTILE(allmem_session_inspect, world.session, 0, &layer_memory);
  HOSTILE(allmem_session_save, world.session, note, 4, world.text.data(), world.text.size(), &count);
  HOSTILE(allmem_session_save_file, world.session, note, 4, "memory");
  HOSTILE(allmem_session_load_file, world.session, "memory");
  const auto write = [](const void*, size_t, void*) -> int32_t { return 0; };
  const auto read = [](void* bytes, size_t size, uint64_t offset, void* from) -> int32_t {
    const auto* all = static_cast<const World*>(from);
    if (all == nullptr || offset > all->snapshot_size || size > all->snapshot_size - offset) return 1;
    std::memcpy(bytes, all->snapshot.data() + offset, size);
    return 0;
  };
  HOSTILE(allmem_session_save_to, world.session, note, 4, +write, nullptr);
  HOSTILE(allmem_session_load_from, world.session, world.snapshot_size, +read, &world);
  HOSTILE(allmem_snapshot_inspect_file, "memory", &snapshot_info, world.text.data(), world.text.size(),
          &count);
  HOSTILE(allmem_snapshot_delete_file, "memory");
  HOSTILE(allmem_session_load, world.session, world.snapshot.data(), world.snapshot_size);
  HOSTILE(allmem_snapshot_inspect, world.snapshot.data(), world.snapshot_size, &snapshot_info,
          world.text.data(), world.text.size(), &count);
  HOSTILE(allmem_batch_create, world.model, &session_options, &other_batch);
  HOSTILE(allmem_batch_prefill, world.batch, &item, 1);
  HOSTILE(allmem_batch_wipe, world.batch);
  HOSTILE(allmem_session_reset, world.session);
  HOSTILE(allmem_session_wipe, world.session);
  std::filesystem::current_path(here);
  ::close(fd);

  std::vector<char> wiped(kRoom);
  REQUIRE(allmem_session_freeze(world.session, 0) == ALLMEM_OK);
  REQUIRE(allmem_session_set_sampling(world.session, nullptr) == ALLMEM_OK);
  REQUIRE(allmem_session_save(world.session, nullptr, 0, wiped.data(), wiped.size(), &count) == ALLMEM_OK);
  wiped.resize(count);
  world.snapshot.resize(world.snapshot_size);
  CHECK(wiped == world.snapshot);  // as new, after all that
}
