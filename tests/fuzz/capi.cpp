// Bytes as a list of C API calls with hostile arguments on a living model: every call answers with a status.
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "allmem/allmem.h"
#include "fuzz.h"

using allmem::fuzz::Input;

namespace {

struct World {
  allmem_model* model = nullptr;
  allmem_session* session = nullptr;
  allmem_decoder* decoder = nullptr;
  World() {
    if (allmem_model_load(ALLMEM_BUNDLED_MODEL, nullptr, &model) != ALLMEM_OK) std::abort();
    allmem_session_options options;
    allmem_session_options_init(&options);
    options.threads = 1;
    if (allmem_session_create(model, &options, &session) != ALLMEM_OK) std::abort();
    if (allmem_decoder_create(model, &decoder) != ALLMEM_OK) std::abort();
  }
};

void check(int32_t status) {
  if (status < 0 || status > ALLMEM_OUT_OF_MEMORY) std::abort();  // ALLMEM_INTERNAL is a finding
  if (status != ALLMEM_OK && *allmem_last_error() == '\0') std::abort();
}

allmem_sampling sampling_from(Input& input) {
  allmem_sampling sampling;
  allmem_sampling_init(&sampling);
  const auto number = [&] {
    const auto bits = input.number<uint32_t>();
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
  };
  if (input.byte() % 2 == 0) sampling.temperature = number();
  if (input.byte() % 2 == 0) sampling.top_k = input.number<int32_t>();
  if (input.byte() % 2 == 0) sampling.top_p = number();
  if (input.byte() % 2 == 0) sampling.min_p = number();
  if (input.byte() % 2 == 0) sampling.repetition_penalty = number();
  if (input.byte() % 2 == 0) sampling.repetition_window = input.number<int32_t>() % 4096;
  sampling.max_tokens = input.byte() % 4;
  return sampling;
}

void call(World& world, Input& input) {
  static std::vector<int32_t> ids(256);
  static std::vector<float> logits(4096);
  static std::vector<uint8_t> bytes(1 << 20);
  static std::vector<uint8_t> snapshot;
  size_t count = 0;
  switch (input.byte() % 18) {
    case 0: {
      const auto text = input.bytes(input.byte());
      check(allmem_tokenize(world.model, reinterpret_cast<const char*>(text.data()), text.size(),
                            input.byte(), ids.data(), input.byte(), &count));
      break;
    }
    case 1: {
      for (size_t i = 0; i < 4; ++i) ids[i] = input.number<int32_t>() >> (input.byte() % 32);
      check(allmem_detokenize(world.model, ids.data(), input.byte() % 5,
                              reinterpret_cast<char*>(bytes.data()), input.byte(), &count));
      break;
    }
    case 2: {
      const char* text = nullptr;
      check(allmem_decoder_push(world.decoder, input.number<int16_t>(), &text, &count));
      break;
    }
    case 3: {
      const char* text = nullptr;
      check(allmem_decoder_flush(world.decoder, &text, &count));
      break;
    }
    case 4: {
      const std::string role(reinterpret_cast<const char*>(input.bytes(4).data()), 0);
      const auto text = input.bytes(input.byte());
      const std::string content(text.begin(), text.end());
      const allmem_message message = {input.byte() % 4 == 0 ? role.c_str() : "user", content.c_str()};
      check(allmem_chat_encode(world.model, &message, 1, input.byte(), ids.data(), input.byte(), &count));
      break;
    }
    case 5: {
      const size_t wanted = input.byte() % 40;
      for (size_t i = 0; i < wanted; ++i) ids[i] = input.number<int16_t>();
      check(allmem_session_prefill(world.session, ids.data(), wanted, &count));
      break;
    }
    case 6:
      check(allmem_session_logits(world.session, logits.data(), input.number<uint16_t>() % 4097, &count));
      break;
    case 7: {
      const allmem_sampling sampling = sampling_from(input);
      check(allmem_session_set_sampling(world.session, &sampling));
      break;
    }
    case 8: {
      int32_t id = 0;
      if (allmem_session_sample(world.session, &id) == ALLMEM_OK) {
        check(allmem_session_prefill(world.session, &id, 1, nullptr));
      }
      break;
    }
    case 9: {
      const allmem_sampling sampling = sampling_from(input);
      const auto text = input.bytes(input.byte());
      const std::string content(text.begin(), text.end());
      const allmem_message message = {"user", content.c_str()};
      int32_t stop = input.byte() % 2;  // a text that is stopped may be resumed, saved, marked
      const auto callback = [](const char*, size_t, void* stop) {
        return *static_cast<const int32_t*>(stop);
      };
      check(allmem_session_chat(world.session, &message, 1, &sampling, callback, &stop, nullptr));
      break;
    }
    case 10:
      check(allmem_session_freeze(world.session, input.byte() % 2));
      break;
    case 11:
      check(input.byte() % 2 == 0 ? allmem_session_reset(world.session) : allmem_session_wipe(world.session));
      break;
    case 12: {
      snapshot.resize(bytes.size());
      check(allmem_session_save(world.session, ids.data(), input.byte(), snapshot.data(), snapshot.size(),
                                &count));
      snapshot.resize(count);
      break;
    }
    case 13: {
      if (!snapshot.empty()) snapshot[input.number<uint32_t>() % snapshot.size()] ^= input.byte();
      check(allmem_session_load(world.session, snapshot.data(), snapshot.size()));
      break;
    }
    case 14: {
      const auto stop = [](const char*, size_t, void*) { return int32_t{1}; };
      check(allmem_session_resume(world.session, stop, nullptr, nullptr));
      break;
    }
    case 15:
      check(allmem_session_mark(world.session, input.number<uint32_t>()));
      break;
    case 16:
      check(allmem_session_undo(world.session));
      break;
    case 17: {
      allmem_layer_memory memory;
      memory.struct_size = sizeof memory;
      check(allmem_session_inspect(world.session, input.number<int8_t>(), &memory));
      break;
    }
  }
}

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static World world;
  check(allmem_session_reset(world.session));
  Input input(data, size);
  for (int calls = 0; !input.empty() && calls < 16; ++calls) call(world, input);
  return 0;
}
