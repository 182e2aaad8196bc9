// The layout of what crosses the border: a change here breaks programs that are already compiled.
#include <doctest/doctest.h>

#include <cstddef>
#include <fstream>
#include <sstream>
#include <string>

#include "allmem/allmem.h"

extern "C" int header_compiles_as_c99(void);
extern "C" int header_compiles_as_c11(void);

namespace {

// "struct size", then "struct.field offset size" for each field.
template <class Struct, class... Fields>
void describe(std::ostream& out, const char* name, const Struct& value, std::string field_names,
              const Fields&... fields) {
  const auto* begin = reinterpret_cast<const char*>(&value);
  std::istringstream names(field_names);
  const auto line = [&](const auto& field) {
    std::string field_name;
    std::getline(names >> std::ws, field_name, ',');
    out << name << '.' << field_name << ' ' << reinterpret_cast<const char*>(&field) - begin << ' '
        << sizeof field << '\n';
  };
  out << name << ' ' << sizeof value << '\n';
  (line(fields), ...);
}

// A structured binding does not compile unless it names every field.
#define DESCRIBE(out, type, ...)                            \
  {                                                         \
    const type value = {};                                  \
    const auto& [__VA_ARGS__] = value;                      \
    describe(out, #type, value, #__VA_ARGS__, __VA_ARGS__); \
  }

std::string layout() {
  std::ostringstream out;
  DESCRIBE(out, allmem_model_options, struct_size, log, user_data, exact, reserved, window, sinks, chunk,
           memory, check, reserved_too)
  DESCRIBE(out, allmem_model_info, struct_size, vocab_size, layers, window, sinks, chunk, has_tokenizer,
           has_chat, reserved, weight_bytes, state_bytes, fingerprint, quantization)
  DESCRIBE(out, allmem_file, name, data, size, fd, offset)
  DESCRIBE(out, allmem_message, role, content)
  DESCRIBE(out, allmem_session_options, struct_size, threads, run_tasks, user_data)
  DESCRIBE(out, allmem_sampling, struct_size, temperature, top_k, top_p, min_p, repetition_penalty,
           repetition_window, seed, max_tokens, stop, stop_count, logit_bias, logit_bias_count, speculate,
           reserved)
  DESCRIBE(out, allmem_logit_bias, id, bias)
  DESCRIBE(out, allmem_token_score, id, logprob)
  DESCRIBE(out, allmem_generation, struct_size, finish, prompt_left, prompt_tokens, generated_tokens,
           prefill_seconds, decode_seconds, drafted_tokens, accepted_tokens)
  DESCRIBE(out, allmem_session_info, struct_size, position, state_bytes, window_bytes, fast_weight_bytes,
           momentum_bytes, gradient_bytes, total_bytes, mark_bytes, marks, unfinished, threads, frozen)
  DESCRIBE(out, allmem_layer_memory, struct_size, drift, weight, momentum, gradient)
  DESCRIBE(out, allmem_snapshot_info, struct_size, position, fingerprint, state_bytes, format, frozen, exact,
           unfinished)
  DESCRIBE(out, allmem_batch_item, session, ids, id_count, read, status, reserved)
  return out.str();
}

std::string text_of(const char* path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

}  // namespace

TEST_CASE("structs have the layout of the committed list") {
  if (sizeof(void*) == 8) CHECK(layout() == text_of(ALLMEM_LAYOUT));  // of every 64-bit platform we build for
}

TEST_CASE("the list has every struct of the header") {
  std::istringstream header(text_of(ALLMEM_HEADER));
  const std::string list = text_of(ALLMEM_LAYOUT);
  int structs = 0;
  for (std::string line; std::getline(header, line);) {
    if (!line.starts_with("typedef struct ") || !line.ends_with("{")) continue;
    const std::string name = line.substr(15, line.size() - 15 - 2);
    CHECK_MESSAGE(list.find(name + " ") != std::string::npos, name);
    ++structs;
  }
  CHECK(structs == 13);
}

TEST_CASE("numbers keep their meaning") {
  CHECK(ALLMEM_ABI_VERSION == 1);
  const int statuses[] = {ALLMEM_OK,
                          ALLMEM_INVALID_ARGUMENT,
                          ALLMEM_NOT_FOUND,
                          ALLMEM_IO,
                          ALLMEM_BAD_MODEL,
                          ALLMEM_UNSUPPORTED,
                          ALLMEM_BAD_TOKENIZER,
                          ALLMEM_CANCELLED,
                          ALLMEM_BAD_SNAPSHOT,
                          ALLMEM_POISONED,
                          ALLMEM_BUFFER_TOO_SMALL,
                          ALLMEM_IN_USE,
                          ALLMEM_OUT_OF_MEMORY,
                          ALLMEM_INTERNAL,
                          ALLMEM_CONFLICT};
  for (int i = 0; i < 15; ++i) CHECK(statuses[i] == i);
  const int finishes[] = {ALLMEM_FINISH_STOP_TOKEN, ALLMEM_FINISH_STOP_TEXT, ALLMEM_FINISH_MAX_TOKENS,
                          ALLMEM_FINISH_CANCELLED, ALLMEM_FINISH_NO_TOKEN};
  for (int i = 0; i < 5; ++i) CHECK(finishes[i] == i + 1);
  const int memories[] = {ALLMEM_MEMORY_ON, ALLMEM_MEMORY_FROZEN, ALLMEM_MEMORY_OFF};
  for (int i = 0; i < 3; ++i) CHECK(memories[i] == i);
  const int checks[] = {ALLMEM_CHECK_NONE, ALLMEM_CHECK_SMALL, ALLMEM_CHECK_ALL};
  for (int i = 0; i < 3; ++i) CHECK(checks[i] == i - 1);
}

TEST_CASE("the header is C99, C11 and C++") {
  CHECK(header_compiles_as_c99() == 1);
  CHECK(header_compiles_as_c11() == 1);
}
