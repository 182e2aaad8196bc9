// Sessions: reading, sampling, generating, and the life of their state.
#include <algorithm>

#include "capi/handles.h"
#include "runtime/layer_memory.h"

namespace allmem::capi {
namespace {

std::unique_ptr<allmem_session> make_session(std::shared_ptr<const SharedModel> shared,
                                             std::unique_ptr<Writer> writer) {
  return std::unique_ptr<allmem_session>(  // NOLINT(modernize-make-unique): an aggregate
      new allmem_session{.shared = std::move(shared), .writer = std::move(writer)});
}

// What a caller asks for; NULL is what the model's files ask for.
GenerateOptions generate_options(const SharedModel& model, const allmem_sampling* given) {
  GenerateOptions options = model.text.defaults;
  if (given == nullptr) return options;
  const allmem_sampling sampling = taken(given, "sampling", sampling_of(options));
  options.sampling = sampler_options(sampling);
  options.max_tokens = sampling.max_tokens;
  require(sampling.speculate == 0 || sampling.speculate == 1, "sampling->speculate is neither 0 nor 1.");
  options.speculate = sampling.speculate != 0;
  for (const allmem_logit_bias& of :
       input(sampling.logit_bias, sampling.logit_bias_count, "The logit bias")) {
    options.sampling.logit_bias.push_back({of.id, of.bias});
  }
  for (const char* text : input(sampling.stop, sampling.stop_count, "The list of stop texts")) {
    require(text != nullptr, "A stop text is NULL.");
    options.stop.emplace_back(text);
  }
  return options;
}

int32_t finish_of(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStopToken:
      return ALLMEM_FINISH_STOP_TOKEN;
    case FinishReason::kStopString:
      return ALLMEM_FINISH_STOP_TEXT;
    case FinishReason::kMaxTokens:
      return ALLMEM_FINISH_MAX_TOKENS;
    case FinishReason::kNoToken:
      return ALLMEM_FINISH_NO_TOKEN;
    case FinishReason::kNone:  // left in the middle
      break;
  }
  return ALLMEM_FINISH_CANCELLED;
}

// Nothing, where the host leaves it to the library.
RunTasks tasks_of(const allmem_session_options& options) {
  if (options.run_tasks == nullptr) return {};
  return
      [run = options.run_tasks, user_data = options.user_data](size_t count, FunctionRef<void(size_t)> task) {
        const allmem_task call = [](void* argument, size_t i) {
          (*static_cast<const FunctionRef<void(size_t)>*>(argument))(i);
        };
        call_host(run, call, static_cast<void*>(&task), count, user_data);
      };
}

// What a call that was to read `count` tokens and has read `read` gives.
int32_t read_status(size_t read, size_t count) {
  if (read == count) return ALLMEM_OK;
  return fail(ALLMEM_CANCELLED, kReadingCancelled);
}

// Goes on with the text that the session's writer has begun.
int32_t write_on(allmem_session& handle, allmem_text_callback callback, void* user_data,
                 allmem_generation* generation) {
  Writer& writer = *handle.writer;
  const auto report = [&] {
    if (generation == nullptr) return;
    const GenerateStats& stats = *writer.stats();
    give<allmem_generation>(
        {.struct_size = sizeof *generation,
         .finish = finish_of(stats.finish),
         .prompt_left = static_cast<int32_t>(std::min<size_t>(stats.prompt_left, INT32_MAX)),
         .prompt_tokens = stats.prompt_tokens,
         .generated_tokens = stats.generated_tokens,
         .prefill_seconds = stats.prefill_seconds,
         .decode_seconds = stats.decode_seconds,
         .drafted_tokens = stats.drafted_tokens,
         .accepted_tokens = stats.accepted_tokens},
        generation, "generation");
  };
  const bool at_end = writer.prefill([&](size_t) {
    report();
    return callback == nullptr || call_host(callback, "", size_t{0}, user_data) == 0;
  });
  report();
  if (!at_end || writer.is_cancelled()) return fail(ALLMEM_CANCELLED, "Reading the prompt was cancelled.");
  bool go_on = true;
  while (go_on) {
    const std::optional<std::string> piece = writer.next(handle.hooks);
    if (!piece) break;
    report();
    if (!piece->empty() && callback != nullptr)
      go_on = call_host(callback, piece->c_str(), piece->size(), user_data) == 0;
    if (writer.is_cancelled()) go_on = false;
  }
  report();
  return ALLMEM_OK;
}

int32_t generate(allmem_session& handle, std::span<const int32_t> prompt, const allmem_sampling* sampling,
                 allmem_text_callback callback, void* user_data, allmem_generation* generation) {
  const GenerateOptions options = generate_options(*handle.shared, sampling);
  if (generation != nullptr) check_struct(generation, "generation");
  handle.writer->start(handle.shared->tokenizer(), prompt, options);
  return write_on(handle, callback, user_data, generation);
}

}  // namespace

SessionOptions session_options(const allmem_session_options* options) {
  const allmem_session_options chosen =
      options == nullptr ? allmem_session_options{} : taken(options, "options", allmem_session_options{});
  return {.threads = chosen.threads, .run_tasks = tasks_of(chosen)};
}

SamplerOptions sampler_options(const allmem_sampling& sampling) {
  SamplerOptions options;
  each_sampling_option([](const char*, auto& to, const auto& from) { to = from; }, options, sampling);
  return options;
}

allmem_sampling sampling_of(const GenerateOptions& options) {
  allmem_sampling sampling = {};
  sampling.struct_size = sizeof sampling;
  each_sampling_option([](const char*, auto& to, const auto& from) { to = from; }, sampling,
                       options.sampling);
  sampling.max_tokens = options.max_tokens;
  sampling.speculate = options.speculate ? 1 : 0;
  return sampling;
}

}  // namespace allmem::capi

using namespace allmem;
using namespace allmem::capi;

void allmem_session_options_init_sized(allmem_session_options* options, size_t struct_size) {
  init(options, struct_size, allmem_session_options{});
}

void(allmem_session_options_init)(allmem_session_options* options) {
  allmem_session_options_init_sized(options, first_size<allmem_session_options>());
}

void allmem_sampling_init_sized(allmem_sampling* sampling, size_t struct_size) {
  init(sampling, struct_size, sampling_of(default_options()));
}

void(allmem_sampling_init)(allmem_sampling* sampling) {
  allmem_sampling_init_sized(sampling, first_size<allmem_sampling>());
}

int32_t allmem_session_create(const allmem_model* model, const allmem_session_options* options,
                              allmem_session** session) {
  return guarded([&] {
    require(model != nullptr, "The model is NULL.");
    require(session != nullptr, "`session` is NULL; it receives the session.");
    auto session_of_model = std::make_unique<Session>(model->shared->model, session_options(options));
    auto writer = std::make_unique<Writer>(std::move(session_of_model));
    writer->set_sampling(model->shared->text.defaults.sampling);
    *session = make_session(model->shared, std::move(writer)).release();
    return ALLMEM_OK;
  });
}

int32_t allmem_session_clone(allmem_session* session, allmem_session** copy) {
  return with_session(session, [&](allmem_session& handle) {
    require(copy != nullptr, "`copy` is NULL; it receives the new session.");
    *copy = make_session(handle.shared, handle.writer->clone()).release();
    return ALLMEM_OK;
  });
}

void allmem_session_free(allmem_session* session) { delete session; }

int32_t allmem_session_prefill(allmem_session* session, const int32_t* ids, size_t id_count, size_t* read) {
  return with_session(session, [&](allmem_session& handle) {
    const auto all = input(ids, id_count, "The list of ids");
    const auto note = [&](size_t so_far) {
      if (read != nullptr) *read = so_far;
      return true;
    };
    note(0);
    const size_t done = handle.writer->read(all, LogitsFor::kLast, {}, note);
    note(done);
    return read_status(done, all.size());
  });
}

int32_t allmem_session_forward(allmem_session* session, const int32_t* ids, size_t id_count, float* logits,
                               size_t capacity, size_t* count) {
  return with_session(session, [&](allmem_session& handle) -> int32_t {
    require(count != nullptr, "`count` is NULL; it receives the size that is needed.");
    const auto all = input(ids, id_count, "The list of ids");
    const auto vocab = static_cast<size_t>(handle.shared->model->info().vocab_size);
    check_ids(all, vocab);  // before anybody makes room for their logits
    require(all.size() <= static_cast<size_t>(PTRDIFF_MAX) / sizeof(float) / vocab,
            "The logits of so many tokens do not fit into memory.");
    *count = all.size() * vocab;
    if (logits == nullptr || capacity < *count) {
      return too_small(logits == nullptr ? 0 : capacity, *count);
    }
    const std::span<float> rows(logits, *count);
    const auto note = [&](size_t so_far) {
      *count = so_far * vocab;
      return true;
    };
    note(0);
    const size_t done = handle.writer->read(all, LogitsFor::kAll, rows, note);
    note(done);
    return read_status(done, all.size());
  });
}

int32_t allmem_session_logits(allmem_session* session, float* logits, size_t capacity, size_t* count) {
  return with_session(session, [&](allmem_session& handle) {
    const std::span<const float> all = handle.writer->logits();
    require(
        !all.empty(),
        "There are no logits: the last call that read gave none. Let allmem_session_prefill() read a token.");
    return output(all, logits, capacity, count);
  });
}

int32_t allmem_session_set_sampling(allmem_session* session, const allmem_sampling* sampling) {
  return with_session(session, [&](allmem_session& handle) {
    handle.writer->set_sampling(generate_options(*handle.shared, sampling).sampling);
    return ALLMEM_OK;
  });
}

int32_t allmem_session_sample(allmem_session* session, int32_t* id) {
  return with_session(session, [&](allmem_session& handle) {
    require(id != nullptr, "`id` is NULL; it receives the token.");
    *id = handle.writer->sample(handle.shared->text.tokenizer.get());
    return ALLMEM_OK;
  });
}

int32_t allmem_session_generate(allmem_session* session, const int32_t* ids, size_t id_count,
                                const allmem_sampling* sampling, allmem_text_callback callback,
                                void* user_data, allmem_generation* generation) {
  return with_session(session, [&](allmem_session& handle) {
    const auto prompt = input(ids, id_count, "The list of ids");
    return generate(handle, prompt, sampling, callback, user_data, generation);
  });
}

int32_t allmem_session_chat(allmem_session* session, const allmem_message* messages, size_t message_count,
                            const allmem_sampling* sampling, allmem_text_callback callback, void* user_data,
                            allmem_generation* generation) {
  return with_session(session, [&](allmem_session& handle) {
    const auto all = input(messages, message_count, "The list of messages");
    const bool continues = handle.writer->session().position() > 0;
    if (generation != nullptr) check_struct(generation, "generation");
    const auto go_on = [&] {
      const bool ended = callback != nullptr && call_host(callback, "", size_t{0}, user_data) != 0;
      return !ended && !handle.writer->is_cancelled();
    };
    std::vector<int32_t> prompt;
    try {
      prompt = encode_messages(*handle.shared, all, continues, go_on);
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kCancelled) throw;
      handle.writer->drop_text();  // what is resumed now would be an older answer
      if (generation != nullptr) {
        allmem_generation nothing{};
        nothing.finish = ALLMEM_FINISH_CANCELLED;
        give(nothing, generation, "generation");
      }
      throw;
    }
    return generate(handle, prompt, sampling, callback, user_data, generation);
  });
}

int32_t allmem_session_resume(allmem_session* session, allmem_text_callback callback, void* user_data,
                              allmem_generation* generation) {
  return with_session(session, [&](allmem_session& handle) {
    if (generation != nullptr) check_struct(generation, "generation");
    require(handle.writer->unfinished(), "There is no unfinished text to go on with.");
    return write_on(handle, callback, user_data, generation);
  });
}

int32_t allmem_session_set_token_callback(allmem_session* session, size_t best_count,
                                          allmem_token_callback callback, void* user_data) {
  return with_session(session, [&](allmem_session& handle) {
    handle.hooks.best = best_count;
    handle.hooks.drawn = nullptr;
    if (callback == nullptr) return ALLMEM_OK;
    handle.hooks.drawn = [callback, user_data](TokenScore token, std::span<const TokenScore> best) {
      std::vector<allmem_token_score> likeliest;
      for (const TokenScore& of : best) likeliest.push_back({of.id, of.logprob});
      call_host(callback, allmem_token_score{token.id, token.logprob},
                static_cast<const allmem_token_score*>(likeliest.data()), likeliest.size(), user_data);
    };
    return ALLMEM_OK;
  });
}

int32_t allmem_session_set_token_filter(allmem_session* session, allmem_token_filter filter,
                                        void* user_data) {
  return with_session(session, [&](allmem_session& handle) {
    handle.hooks.filter = nullptr;
    if (filter == nullptr) return ALLMEM_OK;
    handle.hooks.filter = [filter, user_data](int32_t last, std::span<uint32_t> allowed) {
      call_host(filter, last, allowed.data(), allowed.size(), user_data);
    };
    return ALLMEM_OK;
  });
}

int32_t allmem_session_cancel(allmem_session* session) {
  return guarded([&] {
    require(session != nullptr, "The session is NULL.");
    session->writer->cancel();
    return ALLMEM_OK;
  });
}

int32_t allmem_session_freeze(allmem_session* session, int32_t frozen) {
  return with_session(session, [&](allmem_session& handle) {
    handle.writer->session().freeze(frozen != 0);
    return ALLMEM_OK;
  });
}

int32_t allmem_session_reset(allmem_session* session) {
  return with_session(session, [&](allmem_session& handle) {
    handle.writer->reset();
    return ALLMEM_OK;
  });
}

int32_t allmem_session_wipe(allmem_session* session) {
  return with_session(session, [&](allmem_session& handle) {
    handle.writer->wipe();
    return ALLMEM_OK;
  });
}

int32_t allmem_session_mark(allmem_session* session, uint64_t max_bytes) {
  return with_session(session, [&](allmem_session& handle) {
    handle.writer->mark(static_cast<size_t>(std::min<uint64_t>(max_bytes, SIZE_MAX)));
    return ALLMEM_OK;
  });
}

int32_t allmem_session_undo(allmem_session* session) {
  return with_session(session, [&](allmem_session& handle) {
    require(handle.writer->undo(), "There is no marked state to go back to.");
    return ALLMEM_OK;
  });
}

int32_t allmem_session_get_info(allmem_session* session, allmem_session_info* info) {
  return with_session(session, [&](allmem_session& handle) {
    check_struct(info, "info");
    const Session& core = handle.writer->session();
    const StateParts parts = state_parts(core.model().info().states, core.state_bytes());
    *info = {.struct_size = sizeof *info,
             .position = core.position(),
             .state_bytes = core.state_bytes(),
             .window_bytes = parts.window,
             .fast_weight_bytes = parts.fast_weights,
             .momentum_bytes = parts.momentum,
             .gradient_bytes = parts.gradient,
             .total_bytes = core.total_bytes(),
             .mark_bytes = handle.writer->mark_bytes(),
             .marks = static_cast<int32_t>(std::min<size_t>(handle.writer->marks(), INT32_MAX)),
             .unfinished = handle.writer->unfinished(),
             .threads = core.threads(),
             .frozen = core.frozen()};
    return ALLMEM_OK;
  });
}

int32_t allmem_session_inspect(allmem_session* session, int32_t layer, allmem_layer_memory* memory) {
  return with_session(session, [&](allmem_session& handle) {
    check_struct(memory, "memory");
    for (const LayerMemory& found : layer_memories(handle.writer->session())) {
      if (found.layer != layer) continue;
      *memory = {.struct_size = sizeof *memory,
                 .drift = found.drift,
                 .weight = found.weight,
                 .momentum = found.momentum,
                 .gradient = found.gradient};
      return ALLMEM_OK;
    }
    throw Error(ErrorCode::kInvalidArgument,
                "The model has no memory in a layer " + std::to_string(layer) + ".");
  });
}
