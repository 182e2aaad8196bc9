// Every function with arguments that break its contract: a status and a sentence, never a crash.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "allmem/allmem.h"

namespace {

constexpr size_t kHuge = SIZE_MAX - 1;

struct Fixture {
  allmem_model* model = nullptr;
  allmem_session* session = nullptr;
  allmem_decoder* decoder = nullptr;
  Fixture() {
    REQUIRE(allmem_model_load(ALLMEM_BUNDLED_MODEL, nullptr, &model) == ALLMEM_OK);
    REQUIRE(allmem_session_create(model, nullptr, &session) == ALLMEM_OK);
    REQUIRE(allmem_decoder_create(model, &decoder) == ALLMEM_OK);
  }
  ~Fixture() {
    allmem_decoder_free(decoder);
    allmem_session_free(session);
    allmem_model_free(model);
  }
  Fixture(const Fixture&) = delete;
  Fixture& operator=(const Fixture&) = delete;
};

// The call was refused, with a sentence.
void refused(int32_t status, int32_t expected = ALLMEM_INVALID_ARGUMENT) {
  CHECK(status == expected);
  CHECK(std::string(allmem_last_error()).ends_with("."));
}

}  // namespace

TEST_CASE("what cannot fail takes any number and NULL") {
  for (const int32_t status :
       {-1, 15, std::numeric_limits<int32_t>::max(), std::numeric_limits<int32_t>::min()}) {
    CHECK(std::string(allmem_status_name(status)) == "unknown status");
  }
  allmem_model_options_init(nullptr);
  allmem_session_options_init(nullptr);
  allmem_sampling_init(nullptr);
  allmem_model_options_init_sized(nullptr, 0);
  allmem_session_options_init_sized(nullptr, 0);
  allmem_sampling_init_sized(nullptr, 0);
  allmem_sampling unchanged;
  unchanged.struct_size = 5;
  allmem_sampling_init_sized(&unchanged, 4);  // less than a size_t
  CHECK(unchanged.struct_size == 5);
  allmem_model_free(nullptr);
  allmem_session_free(nullptr);
  allmem_batch_free(nullptr);
  allmem_decoder_free(nullptr);
}

TEST_CASE("loading refuses") {
  allmem_model* model = nullptr;
  refused(allmem_model_load(nullptr, nullptr, &model));
  refused(allmem_model_load("", nullptr, &model));
  refused(allmem_model_load(ALLMEM_BUNDLED_MODEL, nullptr, nullptr));
  refused(allmem_model_load("/no/such/model", nullptr, &model), ALLMEM_NOT_FOUND);
  allmem_model_options options;
  allmem_model_options_init(&options);
  options.struct_size = 0;
  refused(allmem_model_load(ALLMEM_BUNDLED_MODEL, &options, &model));
  options.struct_size = kHuge;
  refused(allmem_model_load(ALLMEM_BUNDLED_MODEL, &options, &model));
  const auto with = [](int32_t allmem_model_options::*field, int32_t value) {
    allmem_model_options changed;
    allmem_model_options_init(&changed);
    changed.*field = value;
    return changed;
  };
  for (const allmem_model_options& wrong :
       {with(&allmem_model_options::exact, 2), with(&allmem_model_options::window, -1),
        with(&allmem_model_options::window, 63), with(&allmem_model_options::window, 1 << 30),
        with(&allmem_model_options::sinks, -2), with(&allmem_model_options::chunk, -1),
        with(&allmem_model_options::chunk, 65), with(&allmem_model_options::memory, -1),
        with(&allmem_model_options::memory, 3), with(&allmem_model_options::check, -2),
        with(&allmem_model_options::check, 2)})
    refused(allmem_model_load(ALLMEM_BUNDLED_MODEL, &wrong, &model));
  allmem_file file = {"model.onnx", nullptr, 10, -1, 0};
  refused(allmem_model_load_memory(&file, 1, nullptr, &model));
  refused(allmem_model_load_memory(nullptr, 1, nullptr, &model));
  refused(allmem_model_load_memory(&file, 0, nullptr, &model));
  refused(allmem_model_load_memory(&file, kHuge, nullptr, &model));
  refused(allmem_model_load_memory(&file, 1, nullptr, nullptr));
  file = {"model.onnx", "garbage", 7, -1, 0};
  refused(allmem_model_load_memory(&file, 1, nullptr, &model), ALLMEM_BAD_MODEL);
  file.size = kHuge;
  refused(allmem_model_load_memory(&file, 1, nullptr, &model));
  file = {nullptr, "garbage", 7, -1, 0};
  refused(allmem_model_load_memory(&file, 1, nullptr, &model));
  file = {"model.onnx", nullptr, 7, -1, 0};
  refused(allmem_model_load_fds(&file, 1, nullptr, &model),
          ALLMEM_ON_WINDOWS ? ALLMEM_UNSUPPORTED : ALLMEM_IO);
  refused(allmem_model_load_fds(nullptr, 1, nullptr, &model));
  CHECK(model == nullptr);
}

TEST_CASE_FIXTURE(Fixture, "model info refuses") {
  allmem_model_info info;
  info.struct_size = sizeof info;
  refused(allmem_model_get_info(nullptr, &info));
  refused(allmem_model_get_info(model, nullptr));
  info.struct_size = 8;
  refused(allmem_model_get_info(model, &info));
}

TEST_CASE_FIXTURE(Fixture, "a model's sampling refuses") {
  allmem_sampling sampling;
  allmem_sampling_init(&sampling);
  refused(allmem_model_get_sampling(nullptr, &sampling));
  refused(allmem_model_get_sampling(model, nullptr));
  sampling.struct_size = kHuge;
  refused(allmem_model_get_sampling(model, &sampling));
}

TEST_CASE_FIXTURE(Fixture, "text refuses") {
  int32_t ids[4] = {1, 2, 3, 4};
  char text[16];
  size_t count = 0;
  refused(allmem_tokenize(nullptr, "x", 1, 0, ids, 4, &count));
  refused(allmem_tokenize(model, nullptr, 1, 0, ids, 4, &count));
  refused(allmem_tokenize(model, nullptr, ALLMEM_NUL_TERMINATED, 0, ids, 4, &count));
  refused(allmem_tokenize(model, "x", kHuge, 0, ids, 4, &count));
  refused(allmem_tokenize(model, "x", 1, 0, ids, 4, nullptr));
  refused(allmem_tokenize(model, "x y z w v u t s", ALLMEM_NUL_TERMINATED, 0, ids, 1, &count),
          ALLMEM_BUFFER_TOO_SMALL);
  CHECK(count > 1);
  CHECK(allmem_tokenize(model, nullptr, 0, 0, nullptr, 0, &count) == ALLMEM_OK);
  CHECK(count == 0);
  refused(allmem_detokenize(nullptr, ids, 4, text, 16, &count));
  refused(allmem_detokenize(model, nullptr, 4, text, 16, &count));
  refused(allmem_detokenize(model, ids, kHuge, text, 16, &count));
  refused(allmem_detokenize(model, ids, 4, text, 16, nullptr));
  ids[0] = -1;
  refused(allmem_detokenize(model, ids, 4, text, 16, &count));
  ids[0] = std::numeric_limits<int32_t>::max();
  refused(allmem_detokenize(model, ids, 4, text, 16, &count));
  refused(allmem_token_bytes(nullptr, 5, text, 16, &count, nullptr));
  refused(allmem_token_bytes(model, -1, text, 16, &count, nullptr));
  refused(allmem_token_bytes(model, std::numeric_limits<int32_t>::max(), text, 16, &count, nullptr));
  refused(allmem_token_bytes(model, 5, text, 16, nullptr, nullptr));
  refused(allmem_token_bytes(model, 5, nullptr, 16, &count, nullptr), ALLMEM_BUFFER_TOO_SMALL);
  refused(allmem_text_prefix(nullptr, ids, 4, &count));
  refused(allmem_text_prefix(model, ids, 4, nullptr));
  int32_t is_stop = 0;
  refused(allmem_token_is_stop(nullptr, 0, &is_stop));
  refused(allmem_token_is_stop(model, 0, nullptr));
  CHECK(allmem_token_is_stop(model, -5, &is_stop) == ALLMEM_OK);
  CHECK(is_stop == 0);
}

TEST_CASE_FIXTURE(Fixture, "decoders refuse") {
  const char* text = nullptr;
  size_t size = 0;
  allmem_decoder* other = nullptr;
  refused(allmem_decoder_create(nullptr, &other));
  refused(allmem_decoder_create(model, nullptr));
  refused(allmem_decoder_push(nullptr, 0, &text, &size));
  refused(allmem_decoder_push(decoder, 0, nullptr, &size));
  refused(allmem_decoder_push(decoder, 0, &text, nullptr));
  refused(allmem_decoder_push(decoder, -1, &text, &size));
  refused(allmem_decoder_push(decoder, 1 << 30, &text, &size));
  refused(allmem_decoder_flush(nullptr, &text, &size));
  refused(allmem_decoder_flush(decoder, nullptr, &size));
}

TEST_CASE_FIXTURE(Fixture, "chat encoding refuses") {
  int32_t ids[64];
  size_t count = 0;
  allmem_message message = {"user", "x"};
  refused(allmem_chat_encode(nullptr, &message, 1, 0, ids, 64, &count));
  refused(allmem_chat_encode(model, nullptr, 1, 0, ids, 64, &count));
  refused(allmem_chat_encode(model, &message, 0, 0, ids, 64, &count));
  refused(allmem_chat_encode(model, &message, kHuge, 0, ids, 64, &count));
  refused(allmem_chat_encode(model, &message, 1, 0, ids, 64, nullptr));
  message = {"tool", "x"};
  refused(allmem_chat_encode(model, &message, 1, 0, ids, 64, &count));
  message = {nullptr, "x"};
  refused(allmem_chat_encode(model, &message, 1, 0, ids, 64, &count));
  message = {"user", nullptr};
  refused(allmem_chat_encode(model, &message, 1, 0, ids, 64, &count));
}

TEST_CASE_FIXTURE(Fixture, "batches refuse") {
  allmem_batch* batch = nullptr;
  refused(allmem_batch_create(nullptr, nullptr, &batch));
  refused(allmem_batch_create(model, nullptr, nullptr));
  allmem_session_options options;
  allmem_session_options_init(&options);
  options.threads = -1;
  refused(allmem_batch_create(model, &options, &batch));
  options.threads = 1;
  options.struct_size = kHuge;
  refused(allmem_batch_create(model, &options, &batch));
  refused(allmem_batch_prefill(nullptr, nullptr, 0));
  refused(allmem_batch_wipe(nullptr));
  REQUIRE(allmem_batch_create(model, nullptr, &batch) == ALLMEM_OK);
  const int32_t ids[] = {1, 2, 1 << 20};
  allmem_batch_item item = {session, ids, 2, 0, 0, 0};
  refused(allmem_batch_prefill(batch, nullptr, 1));
  refused(allmem_batch_prefill(batch, &item, kHuge));
  for (const allmem_batch_item& wrong :
       {allmem_batch_item{nullptr, ids, 2, 0, 0, 0}, allmem_batch_item{session, nullptr, 2, 0, 0, 0},
        allmem_batch_item{session, ids, 0, 0, 0, 0}, allmem_batch_item{session, ids, 3, 0, 0, 0},
        allmem_batch_item{session, ids, kHuge, 0, 0, 0}}) {
    item = wrong;
    item.read = 7;
    refused(allmem_batch_prefill(batch, &item, 1));
    CHECK(item.status == ALLMEM_INVALID_ARGUMENT);
    CHECK(item.read == 0);
  }
  CHECK(allmem_batch_prefill(batch, nullptr, 0) == ALLMEM_OK);
  allmem_batch_free(batch);
}

TEST_CASE_FIXTURE(Fixture, "sessions refuse") {
  allmem_session* other = nullptr;
  refused(allmem_session_create(nullptr, nullptr, &other));
  refused(allmem_session_create(model, nullptr, nullptr));
  allmem_session_options options;
  allmem_session_options_init(&options);
  for (const int32_t threads : {-1, 1 << 20, std::numeric_limits<int32_t>::min()}) {
    options.threads = threads;
    refused(allmem_session_create(model, &options, &other));
  }
  options.struct_size = 1;
  options.threads = 1;
  refused(allmem_session_create(model, &options, &other));
  refused(allmem_session_clone(nullptr, &other));
  refused(allmem_session_clone(session, nullptr));
  refused(allmem_session_cancel(nullptr));
  refused(allmem_session_freeze(nullptr, 1));
  refused(allmem_session_reset(nullptr));
  refused(allmem_session_wipe(nullptr));
  allmem_session_info info;
  info.struct_size = sizeof info;
  refused(allmem_session_get_info(nullptr, &info));
  refused(allmem_session_get_info(session, nullptr));
  info.struct_size = 0;
  refused(allmem_session_get_info(session, &info));
  allmem_layer_memory memory;
  memory.struct_size = sizeof memory;
  refused(allmem_session_inspect(nullptr, 0, &memory));
  refused(allmem_session_inspect(session, 0, nullptr));
  for (const int32_t layer : {-1, 4, std::numeric_limits<int32_t>::max()}) {
    refused(allmem_session_inspect(session, layer, &memory));
  }
  memory.struct_size = 0;
  refused(allmem_session_inspect(session, 0, &memory));
  refused(allmem_session_set_token_callback(nullptr, 0, nullptr, nullptr));
  refused(allmem_session_set_token_filter(nullptr, nullptr, nullptr));
  refused(allmem_session_mark(nullptr, 0));
  CHECK(allmem_session_mark(session, UINT64_MAX) == ALLMEM_OK);
  refused(allmem_session_undo(nullptr));
  CHECK(allmem_session_undo(session) == ALLMEM_OK);
  refused(allmem_session_undo(session));
}

TEST_CASE_FIXTURE(Fixture, "reading refuses and changes nothing") {
  int32_t ids[3] = {5, 6, 7};
  size_t read = 9, count = 0;
  float logits[4];
  int32_t id = 0;
  refused(allmem_session_prefill(nullptr, ids, 3, &read));
  refused(allmem_session_prefill(session, nullptr, 3, &read));
  refused(allmem_session_prefill(session, ids, 0, &read));
  refused(allmem_session_prefill(session, ids, kHuge, &read));
  ids[2] = -1;
  refused(allmem_session_prefill(session, ids, 3, &read));
  ids[2] = std::numeric_limits<int32_t>::max();
  refused(allmem_session_prefill(session, ids, 3, &read));
  CHECK(read == 0);
  refused(allmem_session_forward(nullptr, ids, 2, logits, 4, &count));
  refused(allmem_session_forward(session, nullptr, 2, logits, 4, &count));
  refused(allmem_session_forward(session, ids, 0, logits, 4, &count));
  refused(allmem_session_forward(session, ids, kHuge, logits, 4, &count));
  refused(allmem_session_forward(session, ids, kHuge / 4 / 2048, logits, 4, nullptr));
  refused(allmem_session_forward(session, ids, 3, logits, 4, &count));
  refused(allmem_session_forward(session, ids, 2, logits, 4, nullptr));
  refused(allmem_session_forward(session, ids, 2, logits, 4, &count), ALLMEM_BUFFER_TOO_SMALL);
  CHECK(count == 2 * 2048);
  refused(allmem_session_logits(session, logits, 4, &count));
  refused(allmem_session_sample(session, &id));
  allmem_session_info info;
  info.struct_size = sizeof info;
  REQUIRE(allmem_session_get_info(session, &info) == ALLMEM_OK);
  CHECK(info.position == 0);
  REQUIRE(allmem_session_prefill(session, ids, 2, &read) == ALLMEM_OK);
  refused(allmem_session_logits(nullptr, logits, 4, &count));
  refused(allmem_session_logits(session, logits, 4, nullptr));
  refused(allmem_session_logits(session, logits, 4, &count), ALLMEM_BUFFER_TOO_SMALL);
  CHECK(count == 2048);
  refused(allmem_session_sample(nullptr, &id));
  refused(allmem_session_sample(session, nullptr));
}

TEST_CASE_FIXTURE(Fixture, "sampling refuses what is out of range") {
  const float nan = std::numeric_limits<float>::quiet_NaN(),
              infinity = std::numeric_limits<float>::infinity();
  allmem_sampling good;
  allmem_sampling_init(&good);
  std::vector<allmem_sampling> bad;
  const auto add = [&](auto&& change) {
    allmem_sampling sampling = good;
    change(sampling);
    bad.push_back(sampling);
  };
  for (const float value : {nan, infinity, -1.0f}) {
    add([&](allmem_sampling& s) { s.temperature = value; });
    add([&](allmem_sampling& s) { s.top_p = value; });
    add([&](allmem_sampling& s) { s.min_p = value; });
    add([&](allmem_sampling& s) { s.repetition_penalty = value; });
  }
  add([](allmem_sampling& s) { s.top_k = -1; });
  add([](allmem_sampling& s) { s.repetition_window = -1; });
  add([](allmem_sampling& s) { s.repetition_window = std::numeric_limits<int32_t>::max(); });
  add([](allmem_sampling& s) { s.struct_size = 0; });
  const int32_t ids[1] = {5};
  const allmem_message message = {"user", "x"};
  for (const allmem_sampling& sampling : bad) {
    refused(allmem_session_set_sampling(session, &sampling));
    refused(allmem_session_generate(session, ids, 1, &sampling, nullptr, nullptr, nullptr));
    refused(allmem_session_chat(session, &message, 1, &sampling, nullptr, nullptr, nullptr));
  }
  refused(allmem_session_set_sampling(nullptr, &good));
  CHECK(allmem_session_set_sampling(session, nullptr) == ALLMEM_OK);
  const char* stops[2] = {"a", nullptr};
  good.stop_count = 1;
  refused(allmem_session_generate(session, ids, 1, &good, nullptr, nullptr, nullptr));
  good.stop = stops;
  good.stop_count = 2;
  refused(allmem_session_generate(session, ids, 1, &good, nullptr, nullptr, nullptr));
  good.stop_count = kHuge;
  refused(allmem_session_generate(session, ids, 1, &good, nullptr, nullptr, nullptr));
  good.stop_count = 0;
  good.logit_bias_count = 1;
  refused(allmem_session_generate(session, ids, 1, &good, nullptr, nullptr, nullptr));
  for (const allmem_logit_bias& bias : std::vector<allmem_logit_bias>{
           {-1, 0.0f}, {2048, 0.0f}, {0, nan}, {0, infinity}, {0, 100.5f}, {0, -100.5f}}) {
    good.logit_bias = &bias;
    refused(allmem_session_generate(session, ids, 1, &good, nullptr, nullptr, nullptr));
    refused(allmem_session_set_sampling(session, &good));
  }
  good.logit_bias_count = kHuge;
  refused(allmem_session_generate(session, ids, 1, &good, nullptr, nullptr, nullptr));
  good.logit_bias_count = 0;
  for (const int32_t speculate : {-1, 2}) {
    good.speculate = speculate;
    refused(allmem_session_generate(session, ids, 1, &good, nullptr, nullptr, nullptr));
  }
  good.speculate = 1;
  good.max_tokens = -1;
  refused(allmem_session_generate(session, ids, 1, &good, nullptr, nullptr, nullptr));
  good.max_tokens = 1;
  allmem_generation generation;
  generation.struct_size = 3;
  refused(allmem_session_generate(session, ids, 1, &good, nullptr, nullptr, &generation));
  refused(allmem_session_generate(nullptr, ids, 1, &good, nullptr, nullptr, nullptr));
  refused(allmem_session_generate(session, nullptr, 1, &good, nullptr, nullptr, nullptr));
  refused(allmem_session_generate(session, ids, 0, &good, nullptr, nullptr, nullptr));
  refused(allmem_session_resume(nullptr, nullptr, nullptr, nullptr));
  refused(allmem_session_resume(session, nullptr, nullptr, nullptr));
  refused(allmem_session_resume(session, nullptr, nullptr, &generation));
  refused(allmem_session_chat(nullptr, &message, 1, &good, nullptr, nullptr, nullptr));
  refused(allmem_session_chat(session, nullptr, 1, &good, nullptr, nullptr, nullptr));
  refused(allmem_session_chat(session, &message, 0, &good, nullptr, nullptr, nullptr));
  allmem_session_info info;
  info.struct_size = sizeof info;
  REQUIRE(allmem_session_get_info(session, &info) == ALLMEM_OK);
  CHECK(info.position == 0);
}

TEST_CASE_FIXTURE(Fixture, "snapshots refuse") {
  char buffer[64] = {};
  size_t count = 0;
  refused(allmem_session_save(nullptr, nullptr, 0, buffer, 64, &count));
  refused(allmem_session_save(session, nullptr, 1, buffer, 64, &count));
  refused(allmem_session_save(session, buffer, kHuge, buffer, 64, &count));
  refused(allmem_session_save(session, nullptr, 0, buffer, 64, nullptr));
  refused(allmem_session_save(session, nullptr, 0, buffer, 64, &count), ALLMEM_BUFFER_TOO_SMALL);
  refused(allmem_session_save_file(nullptr, nullptr, 0, "x"));
  refused(allmem_session_save_file(session, nullptr, 0, nullptr));
  refused(allmem_session_save_file(session, nullptr, 0, ""));
  refused(allmem_session_save_file(session, nullptr, 0, "/no/such/directory/x"), ALLMEM_IO);
  const auto write = [](const void*, size_t, void*) -> int32_t { return 0; };
  const auto read = [](void* bytes, size_t size, uint64_t, void*) -> int32_t {
    std::memset(bytes, 1, size);
    return 0;
  };
  refused(allmem_session_save_to(nullptr, nullptr, 0, write, nullptr));
  refused(allmem_session_save_to(session, nullptr, 0, nullptr, nullptr));
  refused(allmem_session_save_to(session, nullptr, 1, write, nullptr));
  refused(allmem_session_load_from(nullptr, 64, read, nullptr));
  refused(allmem_session_load_from(session, 64, nullptr, nullptr));
  for (const uint64_t size : {uint64_t{0}, uint64_t{64}, uint64_t{1000}, UINT64_MAX})
    refused(allmem_session_load_from(session, size, read, nullptr), ALLMEM_BAD_SNAPSHOT);
  refused(allmem_snapshot_delete_file(nullptr));
  refused(allmem_snapshot_delete_file(""));
  refused(allmem_snapshot_delete_file("/no/such/file"), ALLMEM_NOT_FOUND);
  refused(allmem_session_load(nullptr, buffer, 64));
  refused(allmem_session_load(session, nullptr, 64));
  refused(allmem_session_load(session, nullptr, 0), ALLMEM_BAD_SNAPSHOT);
  refused(allmem_session_load(session, buffer, 64), ALLMEM_BAD_SNAPSHOT);
  refused(allmem_session_load(session, buffer, kHuge));
  refused(allmem_session_load_file(nullptr, "x"));
  refused(allmem_session_load_file(session, nullptr));
  refused(allmem_session_load_file(session, "/no/such/file"), ALLMEM_NOT_FOUND);
  allmem_snapshot_info info;
  info.struct_size = sizeof info;
  refused(allmem_snapshot_inspect(buffer, 64, &info, nullptr, 0, nullptr), ALLMEM_BAD_SNAPSHOT);
  refused(allmem_snapshot_inspect(nullptr, 64, &info, nullptr, 0, nullptr));
  refused(allmem_snapshot_inspect(buffer, 64, nullptr, nullptr, 0, nullptr));
  refused(allmem_snapshot_inspect_file(nullptr, &info, nullptr, 0, nullptr));
  refused(allmem_snapshot_inspect_file("/no/such/file", &info, nullptr, 0, nullptr), ALLMEM_NOT_FOUND);
  refused(allmem_snapshot_inspect_file(ALLMEM_BUNDLED_MODEL, &info, nullptr, 0, nullptr), ALLMEM_IO);
  refused(allmem_snapshot_inspect_file("x", nullptr, nullptr, 0, nullptr));
  info.struct_size = 0;
  refused(allmem_snapshot_inspect(buffer, 64, &info, nullptr, 0, nullptr));
  refused(allmem_snapshot_inspect_file("x", &info, nullptr, 0, nullptr));
}
