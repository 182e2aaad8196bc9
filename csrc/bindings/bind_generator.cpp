// _core.Generator: the generate loop, over a native session or over any Python function that runs a model.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bindings/generator.h"

namespace py = pybind11;

namespace allmem::python {
namespace {

// `run(ids: int64[T], last: bool)` returns the last token's float32 logits, or anything when `last` is false.
Forward function_forward(const py::function& run) {
  const auto block = [run](std::span<const int32_t> ids, bool last, std::span<float> logits) {
    const WithGil with;
    py::array_t<int64_t> array(static_cast<py::ssize_t>(ids.size()));
    std::ranges::copy(ids, array.mutable_data());
    const py::object result = run(array, last);
    if (!last) return;
    const auto values = py::cast<py::array_t<float, py::array::c_style | py::array::forcecast>>(result);
    if (static_cast<size_t>(values.size()) != logits.size()) {
      throw Error(ErrorCode::kBadModel, "The model returned " + std::to_string(values.size()) +
                                            " logits instead of " + std::to_string(logits.size()) + ".");
    }
    std::copy_n(values.data(), logits.size(), logits.begin());
  };
  return [block](std::span<const int32_t> ids, LogitsFor, std::span<float> logits, GoOn go_on) {
    return in_blocks(ids.size(), kMaxBlock, go_on, [&](size_t begin, size_t count) {
      block(ids.subspan(begin, count), begin + count == ids.size(), logits);
    });
  };
}

void record_tokens(GeneratorHandle& handle, size_t best) {
  handle.hooks.best = best;
  handle.hooks.drawn = [&handle](TokenScore token, std::span<const TokenScore> likeliest) {
    Drawn& drawn = handle.tokens.emplace_back(Drawn{token.id, token.logprob, {}});
    for (const TokenScore& of : likeliest) drawn.best.emplace_back(of.id, of.logprob);
  };
}

// The function gets an array of its own, which it may keep.
void filter_tokens(GeneratorHandle& handle, const py::function& filter) {
  handle.hooks.filter = [filter](int32_t last, std::span<uint32_t> allowed) {
    const WithGil with;
    py::array_t<uint32_t> mask(static_cast<py::ssize_t>(allowed.size()));
    std::ranges::copy(allowed, mask.mutable_data());
    filter(last, mask);
    std::copy_n(mask.data(), allowed.size(), allowed.begin());
  };
}

std::unique_ptr<GeneratorHandle> create(const py::object& model, int64_t vocab_size,
                                        const std::shared_ptr<ModelText>& text, const py::object& prompt,
                                        const py::dict& sampling, std::optional<size_t> logprobs,
                                        const std::optional<py::function>& filter) {
  GenerateOptions options = generate_options(sampling);
  options.stop_ids = text->defaults.stop_ids;
  const std::vector<int32_t> ids = narrow_ids(prompt);
  auto handle = std::make_unique<GeneratorHandle>();
  if (logprobs) record_tokens(*handle, *logprobs);
  if (filter) filter_tokens(*handle, *filter);
  if (py::isinstance<SessionHandle>(model)) {
    handle->session = py::cast<std::shared_ptr<SessionHandle>>(model);
    ClaimedWriter writer(*handle->session);
    writer->start(text->tokenizer, ids, options);
    writer->forget_cancel();
    handle->text_number = writer->text_number();
    handle->position = writer->session().position();
  } else {
    handle->forward = function_forward(py::cast<py::function>(model));
    handle->generator = std::make_unique<Generator>(static_cast<size_t>(std::max<int64_t>(vocab_size, 0)),
                                                    text->tokenizer, ids, options);
  }
  return handle;
}

std::unique_ptr<GeneratorHandle> resume(const std::shared_ptr<SessionHandle>& session,
                                        std::optional<size_t> logprobs,
                                        const std::optional<py::function>& filter) {
  ClaimedWriter writer(*session);
  if (!writer->unfinished()) {
    throw Error(ErrorCode::kInvalidArgument, "There is no unfinished text to go on with.");
  }
  auto handle = std::make_unique<GeneratorHandle>();
  if (logprobs) record_tokens(*handle, *logprobs);
  if (filter) filter_tokens(*handle, *filter);
  writer->forget_cancel();
  handle->session = session;
  handle->text_number = writer->text_number();
  handle->position = writer->session().position();
  handle->stats = *writer->stats();
  return handle;
}

// One step of the text, `step` being Generator::prefill or ::next, without the GIL.
template <class Step>
auto advance(GeneratorHandle& handle, const Step& step) {
  const auto with = [&](auto& text, const auto& note) {
    const WithoutGil without;
    try {
      auto result = step(text);
      note();
      return result;
    } catch (...) {
      note();
      throw;
    }
  };
  if (!handle.session) return with(*handle.generator, [&] { handle.stats = handle.generator->stats(); });
  ClaimedWriter writer(*handle.session);
  handle.check_text();
  return with(*writer, [&] { handle.note_text(); });
}

struct Prefill {
  const Forward& forward;
  GoOn go_on;
  bool operator()(Writer& writer) const { return writer.prefill(go_on); }
  bool operator()(Generator& generator) const { return generator.prefill(forward, go_on); }
};

struct Next {
  const Forward& forward;
  const DrawHooks& hooks;
  std::optional<std::string> operator()(Writer& writer) const { return writer.next(hooks); }
  std::optional<std::string> operator()(Generator& generator) const { return generator.next(forward, hooks); }
};

// False when the prompt was not read to its end because somebody cancelled.
bool read_prompt(GeneratorHandle& handle) {
  check_signals();
  if (handle.is_cancelled()) return false;
  const auto go_on = [&](size_t) { return go_on_unless_interrupted() && !handle.cancelled; };
  return advance(handle, Prefill{handle.forward, go_on});
}

void prefill(GeneratorHandle& handle) {
  const Claim claim(handle.busy);
  require(claim);
  read_prompt(handle);
}

// The next piece that is not empty: a held-back one says nothing to the caller.
std::string next(GeneratorHandle& handle) {
  const Claim claim(handle.busy);
  require(claim);
  if (handle.stats.finish != FinishReason::kNone) throw py::stop_iteration();
  if (!read_prompt(handle)) throw py::stop_iteration();
  while (true) {
    check_signals();
    if (handle.is_cancelled()) throw py::stop_iteration();
    const std::optional<std::string> piece = advance(handle, Next{handle.forward, handle.hooks});
    if (!piece) throw py::stop_iteration();
    if (!piece->empty()) return *piece;
  }
}

const char* finish_reason(const GeneratorHandle& handle) {
  switch (handle.stats.finish) {
    case FinishReason::kStopToken:
      return "stop_token";
    case FinishReason::kStopString:
      return "stop_string";
    case FinishReason::kMaxTokens:
      return "max_tokens";
    case FinishReason::kNoToken:
      return "no_token";
    case FinishReason::kNone:
      break;
  }
  return handle.is_cancelled() ? "cancelled" : "unfinished";
}

}  // namespace

void bind_generator(py::module_& m) {
  py::class_<Drawn>(m, "Drawn")
      .def_readonly("id", &Drawn::id)
      .def_readonly("logprob", &Drawn::logprob)
      .def_readonly("best", &Drawn::best);

  py::class_<GeneratorHandle>(m, "Generator")
      .def(py::init(&create), py::arg("model"), py::arg("vocab_size"), py::arg("text").none(false),
           py::arg("prompt"), py::arg("sampling"), py::arg("logprobs") = py::none(),
           py::arg("token_filter") = py::none())
      .def_static("resume", &resume, py::arg("session"), py::arg("logprobs") = py::none(),
                  py::arg("token_filter") = py::none())
      .def("take_tokens",
           [](GeneratorHandle& h) {
             const Claim claim(h.busy);
             require(claim);
             return std::exchange(h.tokens, {});
           })
      .def("prefill", &prefill)
      .def("__iter__", [](py::object self) { return self; })
      .def("__next__", &next)
      .def("cancel", [](GeneratorHandle& h) { h.cancelled = true; })
      .def_property_readonly("finish_reason", &finish_reason)
      .def_property_readonly("prompt_tokens", [](const GeneratorHandle& h) { return h.stats.prompt_tokens; })
      .def_property_readonly("generated_tokens",
                             [](const GeneratorHandle& h) { return h.stats.generated_tokens; })
      .def_property_readonly("drafted_tokens",
                             [](const GeneratorHandle& h) { return h.stats.drafted_tokens; })
      .def_property_readonly("accepted_tokens",
                             [](const GeneratorHandle& h) { return h.stats.accepted_tokens; })
      .def_property_readonly("prefill_seconds",
                             [](const GeneratorHandle& h) { return h.stats.prefill_seconds; })
      .def_property_readonly("decode_seconds",
                             [](const GeneratorHandle& h) { return h.stats.decode_seconds; });
}

}  // namespace allmem::python
