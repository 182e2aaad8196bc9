// Sessions: reading, sampling, generating, and the life of their state.
#include <algorithm>

#include "capi/handles.h"
#include "runtime/memory_drift.h"

namespace allmem::capi {
namespace {

// What a session holds beside its core: nothing has been read that could be sampled from.
void forget_logits(allmem_session& handle) { handle.has_logits = false; }

std::unique_ptr<allmem_session> make_session(std::shared_ptr<const SharedModel> shared,
                                             std::unique_ptr<Session> session, const Sampler& sampler) {
  const auto vocab = static_cast<size_t>(session->model().info().vocab_size);
  return std::unique_ptr<allmem_session>(new allmem_session{.shared = std::move(shared),
                                                            .session = std::move(session),
                                                            .sampler = sampler,
                                                            .logits = std::vector<float>(vocab)});
}

const allmem_sampling& checked(const SharedModel& model, const allmem_sampling* sampling) {
  if (sampling == nullptr) return model.sampling;
  check_struct(sampling, "sampling");
  return *sampling;
}

GenerateOptions generate_options(const SharedModel& model, const allmem_sampling& sampling) {
  GenerateOptions options{.sampling = sampler_options(sampling), .max_tokens = sampling.max_tokens};
  for (const char* text : input(sampling.stop, sampling.stop_count, "The list of stop texts")) {
    require(text != nullptr, "A stop text is NULL.");
    options.stop.emplace_back(text);
  }
  options.stop_ids = model.stop_ids;
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
    case FinishReason::kCancelled:
    case FinishReason::kNone:  // left in the middle
      break;
  }
  return ALLMEM_FINISH_CANCELLED;
}

// Checked before the first block runs, so that a refused call has read nothing.
std::span<const int32_t> checked_ids(const allmem_session& handle, const int32_t* ids, size_t count) {
  const auto all = input(ids, count, "The list of ids");
  require(!all.empty(), "There are no tokens to read.");
  const int64_t vocab = handle.shared->model->info().vocab_size;
  for (const int32_t id : all) {
    if (id < 0 || id >= vocab) {
      throw Error(ErrorCode::kInvalidArgument, "Token " + std::to_string(id) +
                                                   " is outside the model's vocabulary of " +
                                                   std::to_string(vocab) + " tokens.");
    }
  }
  return all;
}

// Reads tokens block by block until somebody cancels: `forward` runs the block that begins at an index of
// `ids`.
template <class ForwardBlock>
int32_t read_blocks(allmem_session& handle, std::span<const int32_t> ids, const ForwardBlock& forward) {
  for (size_t begin = 0; begin < ids.size(); begin += kPrefillBlock) {
    const auto block = ids.subspan(begin, std::min(kPrefillBlock, ids.size() - begin));
    if (handle.cancelled)
      return fail(ALLMEM_CANCELLED, "Reading was cancelled between two blocks of tokens.");
    forget_logits(handle);
    forward(block, begin);
    for (const int32_t id : block) handle.sampler.accept(id);
  }
  return ALLMEM_OK;
}

int32_t generate(allmem_session& handle, std::vector<int32_t> prompt, const allmem_sampling* sampling,
                 allmem_text_callback callback, void* user_data, allmem_generation* generation) {
  const GenerateOptions options = generate_options(*handle.shared, checked(*handle.shared, sampling));
  if (generation != nullptr) check_struct(generation, "generation");
  Session& session = *handle.session;
  const Forward forward = [&session](std::span<const int32_t> ids, LogitsFor which, std::span<float> logits) {
    session.forward(ids, which, logits);
  };
  Generator generator(forward, handle.logits.size(), handle.shared->text(), std::move(prompt), options);
  forget_logits(handle);
  const auto report = [&] {
    if (generation == nullptr) return;
    const GenerateStats& stats = generator.stats();
    *generation = {.struct_size = sizeof *generation,
                   .finish = finish_of(stats.finish),
                   .reserved = 0,
                   .prompt_tokens = stats.prompt_tokens,
                   .generated_tokens = stats.generated_tokens,
                   .prefill_seconds = stats.prefill_seconds,
                   .decode_seconds = stats.decode_seconds};
  };
  while (true) {
    const bool more = generator.prefill();
    if (more && callback != nullptr && callback("", 0, user_data) != 0) handle.cancelled = true;
    if (handle.cancelled) {
      report();
      return fail(ALLMEM_CANCELLED, "Reading the prompt was cancelled.");
    }
    if (!more) break;
  }
  bool go_on = true;
  while (go_on) {
    const std::optional<std::string> piece = generator.next();
    if (!piece) break;
    if (!piece->empty() && callback != nullptr)
      go_on = callback(piece->c_str(), piece->size(), user_data) == 0;
    if (handle.cancelled) go_on = false;
  }
  report();
  return ALLMEM_OK;
}

}  // namespace

SamplerOptions sampler_options(const allmem_sampling& sampling) {
  return {.temperature = sampling.temperature,
          .top_k = sampling.top_k,
          .top_p = sampling.top_p,
          .min_p = sampling.min_p,
          .repetition_penalty = sampling.repetition_penalty,
          .repetition_window = sampling.repetition_window,
          .seed = sampling.seed};
}

}  // namespace allmem::capi

using namespace allmem;
using namespace allmem::capi;

void allmem_session_options_init(allmem_session_options* options) {
  if (options != nullptr) *options = {.struct_size = sizeof *options, .threads = 0};
}

void allmem_sampling_init(allmem_sampling* sampling) {
  if (sampling == nullptr) return;
  *sampling = {.struct_size = sizeof *sampling,
               .temperature = 0.7f,
               .top_k = 0,
               .top_p = 1.0f,
               .min_p = 0.0f,
               .repetition_penalty = 1.0f,
               .repetition_window = 64,
               .seed = 0,
               .max_tokens = 512,
               .stop = nullptr,
               .stop_count = 0};
}

int32_t allmem_session_create(const allmem_model* model, const allmem_session_options* options,
                              allmem_session** session) {
  return guarded([&] {
    require(model != nullptr, "The model is NULL.");
    require(session != nullptr, "`session` is NULL; it receives the session.");
    if (options != nullptr) check_struct(options, "options");
    const SessionOptions core{.threads = options != nullptr ? options->threads : 0};
    auto owned = std::make_unique<Session>(model->shared->model, core);
    const Sampler sampler(sampler_options(model->shared->sampling),
                          static_cast<size_t>(model->shared->model->info().vocab_size));
    *session = make_session(model->shared, std::move(owned), sampler).release();
    return ALLMEM_OK;
  });
}

int32_t allmem_session_clone(allmem_session* session, allmem_session** copy) {
  return with_session(session, [&](allmem_session& handle) {
    require(copy != nullptr, "`copy` is NULL; it receives the new session.");
    auto twin = make_session(handle.shared, handle.session->clone(), handle.sampler);
    twin->logits = handle.logits;
    twin->has_logits = handle.has_logits;
    *copy = twin.release();
    return ALLMEM_OK;
  });
}

void allmem_session_free(allmem_session* session) { delete session; }

int32_t allmem_session_prefill(allmem_session* session, const int32_t* ids, size_t id_count, size_t* read) {
  return with_session(session, [&](allmem_session& handle) {
    if (read != nullptr) *read = 0;
    const auto all = checked_ids(handle, ids, id_count);
    return read_blocks(handle, all, [&](std::span<const int32_t> block, size_t begin) {
      const bool last = begin + block.size() == all.size();
      handle.session->forward(block, last ? LogitsFor::kLast : LogitsFor::kNone,
                              last ? std::span<float>(handle.logits) : std::span<float>());
      handle.has_logits = last;
      if (read != nullptr) *read = begin + block.size();
    });
  });
}

int32_t allmem_session_forward(allmem_session* session, const int32_t* ids, size_t id_count, float* logits,
                               size_t capacity, size_t* count) {
  return with_session(session, [&](allmem_session& handle) -> int32_t {
    require(count != nullptr, "`count` is NULL; it receives the size that is needed.");
    const auto all = checked_ids(handle, ids, id_count);
    const size_t vocab = handle.logits.size();
    require(all.size() <= static_cast<size_t>(PTRDIFF_MAX) / sizeof(float) / vocab,
            "The logits of so many tokens fit into no memory.");
    *count = all.size() * vocab;
    if (logits == nullptr || capacity < *count) {
      return too_small(logits == nullptr ? 0 : capacity, *count);
    }
    const std::span<float> rows(logits, *count);
    *count = 0;
    return read_blocks(handle, all, [&](std::span<const int32_t> block, size_t begin) {
      const auto written = rows.subspan(begin * vocab, block.size() * vocab);
      handle.session->forward(block, LogitsFor::kAll, written);
      std::ranges::copy(written.last(vocab), handle.logits.begin());
      handle.has_logits = true;
      *count = (begin + block.size()) * vocab;
    });
  });
}

int32_t allmem_session_logits(allmem_session* session, float* logits, size_t capacity, size_t* count) {
  return with_session(session, [&](allmem_session& handle) {
    require(handle.has_logits, "There are no logits: let allmem_session_prefill() read a token first.");
    return output(std::span<const float>(handle.logits), logits, capacity, count);
  });
}

int32_t allmem_session_set_sampling(allmem_session* session, const allmem_sampling* sampling) {
  return with_session(session, [&](allmem_session& handle) {
    const allmem_sampling& chosen = checked(*handle.shared, sampling);
    handle.sampler = Sampler(sampler_options(chosen), handle.logits.size());
    return ALLMEM_OK;
  });
}

int32_t allmem_session_sample(allmem_session* session, int32_t* id) {
  return with_session(session, [&](allmem_session& handle) {
    require(id != nullptr, "`id` is NULL; it receives the token.");
    require(handle.has_logits, "There are no logits: let allmem_session_prefill() read a token first.");
    size_t samplable = handle.logits.size();  // tokens that the tokenizer does not know are never drawn
    if (const auto& tokenizer = handle.shared->tokenizer) {
      samplable = std::min(samplable, static_cast<size_t>(tokenizer->vocab_size()));
    }
    *id = handle.sampler.sample(std::span<const float>(handle.logits).first(samplable));
    return ALLMEM_OK;
  });
}

int32_t allmem_session_generate(allmem_session* session, const int32_t* ids, size_t id_count,
                                const allmem_sampling* sampling, allmem_text_callback callback,
                                void* user_data, allmem_generation* generation) {
  return with_session(session, [&](allmem_session& handle) {
    const auto prompt = input(ids, id_count, "The list of ids");
    return generate(handle, {prompt.begin(), prompt.end()}, sampling, callback, user_data, generation);
  });
}

int32_t allmem_session_chat(allmem_session* session, const allmem_message* messages, size_t message_count,
                            const allmem_sampling* sampling, allmem_text_callback callback, void* user_data,
                            allmem_generation* generation) {
  return with_session(session, [&](allmem_session& handle) {
    const auto all = input(messages, message_count, "The list of messages");
    const bool continues = handle.session->position() > 0;
    return generate(handle, encode_messages(*handle.shared, all, continues), sampling, callback, user_data,
                    generation);
  });
}

int32_t allmem_session_cancel(allmem_session* session) {
  return guarded([&] {
    require(session != nullptr, "The session is NULL.");
    session->cancelled = true;
    return ALLMEM_OK;
  });
}

int32_t allmem_session_freeze(allmem_session* session, int32_t frozen) {
  return with_session(session, [&](allmem_session& handle) {
    handle.session->freeze(frozen != 0);
    return ALLMEM_OK;
  });
}

int32_t allmem_session_reset(allmem_session* session) {
  return with_session(session, [&](allmem_session& handle) {
    handle.session->reset();
    handle.sampler = Sampler(handle.sampler.options(), handle.logits.size());
    forget_logits(handle);
    return ALLMEM_OK;
  });
}

int32_t allmem_session_wipe(allmem_session* session) {
  return with_session(session, [&](allmem_session& handle) {
    handle.session->wipe();
    handle.sampler.wipe();
    wipe_memory(std::as_writable_bytes(std::span(handle.logits)));
    forget_logits(handle);
    return ALLMEM_OK;
  });
}

int32_t allmem_session_get_info(allmem_session* session, allmem_session_info* info) {
  return with_session(session, [&](allmem_session& handle) {
    check_struct(info, "info");
    const Session& core = *handle.session;
    *info = {.struct_size = sizeof *info,
             .position = core.position(),
             .state_bytes = core.state_bytes(),
             .total_bytes = core.total_bytes(),
             .threads = core.threads(),
             .frozen = core.frozen()};
    return ALLMEM_OK;
  });
}

int32_t allmem_session_memory_drift(allmem_session* session, int32_t layer, double* drift) {
  return with_session(session, [&](allmem_session& handle) {
    require(drift != nullptr, "`drift` is NULL.");
    *drift = memory_drift(*handle.session, layer);
    return ALLMEM_OK;
  });
}
