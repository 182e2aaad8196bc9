// _core.Generator: the generate loop, over a native session or over any Python function that runs a model.
#include <pybind11/functional.h>
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <limits>
#include <string>
#include <vector>

#include "bindings/bindings.h"
#include "runtime/generate.h"

namespace py = pybind11;

namespace allmem::python {
namespace {

// One text being written: by a session, which holds it, or by any Python function that runs a model.
struct GeneratorHandle {
  std::atomic<bool> busy = false;
  std::atomic<bool> cancelled = false;
  GenerateStats stats;  // after the last step
  // Of a session. Somebody else may have moved it on: then its text has another number, or it another
  // position.
  std::shared_ptr<SessionHandle> session;
  uint64_t text_number = 0, position = 0;
  // Of a function.
  std::unique_ptr<Generator> generator;
  Forward forward;

  bool is_cancelled() const { return cancelled || (session && session->cancelled); }
};

// Claims a generator for the scope of one call, as InUse does a session.
class Turn {
 public:
  explicit Turn(GeneratorHandle& handle) : handle_(handle) {
    if (handle.busy.exchange(true)) {
      throw Error(ErrorCode::kInvalidArgument, "This generation is in use by another thread.");
    }
  }
  ~Turn() { handle_.busy = false; }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;

 private:
  GeneratorHandle& handle_;
};

// `run(ids: int64[T], last: bool)` returns the last token's float32 logits, or anything when `last` is false.
Forward function_forward(py::function run) {
  return [run](std::span<const int32_t> ids, LogitsFor which, std::span<float> logits) {
    const py::gil_scoped_acquire acquire;
    py::array_t<int64_t> array(static_cast<py::ssize_t>(ids.size()));
    std::ranges::copy(ids, array.mutable_data());
    const py::object result = run(array, which == LogitsFor::kLast);
    if (which == LogitsFor::kNone) return;
    const auto values = py::cast<py::array_t<float, py::array::c_style | py::array::forcecast>>(result);
    if (static_cast<size_t>(values.size()) != logits.size()) {
      throw Error(ErrorCode::kBadModel, "The model returned " + std::to_string(values.size()) +
                                            " logits instead of " + std::to_string(logits.size()) + ".");
    }
    std::copy_n(values.data(), logits.size(), logits.begin());
  };
}

int32_t narrow(int64_t value, const char* name) {
  if (value < std::numeric_limits<int32_t>::min() || value > std::numeric_limits<int32_t>::max()) {
    throw Error(ErrorCode::kInvalidArgument,
                std::string(name) + " is " + std::to_string(value) + ", which is far out of its range.");
  }
  return static_cast<int32_t>(value);
}

std::vector<int32_t> narrow_all(const std::vector<int64_t>& values, const char* name) {
  std::vector<int32_t> narrowed;
  narrowed.reserve(values.size());
  for (int64_t value : values) narrowed.push_back(narrow(value, name));
  return narrowed;
}

std::unique_ptr<GeneratorHandle> create(const py::object& model, int64_t vocab_size,
                                        const std::shared_ptr<Tokenizer>& tokenizer,
                                        const std::vector<int64_t>& prompt, int64_t max_tokens,
                                        double temperature, int64_t top_k, double top_p, double min_p,
                                        double repetition_penalty, int64_t repetition_window, uint64_t seed,
                                        std::vector<std::string> stop, const std::vector<int64_t>& stop_ids) {
  const GenerateOptions options{.sampling = sampler_options(temperature, top_k, top_p, min_p,
                                                            repetition_penalty, repetition_window, seed),
                                .max_tokens = max_tokens,
                                .stop = std::move(stop),
                                .stop_ids = narrow_all(stop_ids, "A stop id")};
  const std::vector<int32_t> ids = narrow_all(prompt, "A token");
  auto handle = std::make_unique<GeneratorHandle>();
  if (py::isinstance<SessionHandle>(model)) {
    handle->session = py::cast<std::shared_ptr<SessionHandle>>(model);
    InUse writer(*handle->session);
    writer->start(tokenizer, ids, options);
    handle->session->cancelled = false;
    handle->text_number = writer->text_number();
    handle->position = writer->session().position();
  } else {
    handle->forward = function_forward(py::cast<py::function>(model));
    handle->generator = std::make_unique<Generator>(static_cast<size_t>(std::max<int64_t>(vocab_size, 0)),
                                                    tokenizer, ids, options);
  }
  return handle;
}

std::unique_ptr<GeneratorHandle> resume(const std::shared_ptr<SessionHandle>& session) {
  InUse writer(*session);
  if (!writer->unfinished()) {
    throw Error(ErrorCode::kInvalidArgument, "There is no unfinished text to go on with.");
  }
  auto handle = std::make_unique<GeneratorHandle>();
  session->cancelled = false;
  handle->session = session;
  handle->text_number = writer->text_number();
  handle->position = writer->session().position();
  handle->stats = *writer->stats();
  return handle;
}

// One step of the text, `step` being Generator::prefill or ::next, without the GIL.
template <class Step>
auto advance(GeneratorHandle& handle, const Step& step) {
  if (!handle.session) {
    const py::gil_scoped_release release;
    auto result = step(*handle.generator);
    handle.stats = handle.generator->stats();
    return result;
  }
  InUse writer(*handle.session);
  if (writer->text_number() != handle.text_number || writer->session().position() != handle.position) {
    throw Error(ErrorCode::kInvalidArgument,
                "The session was used for something else while this text was being generated; start again.");
  }
  const py::gil_scoped_release release;
  auto result = step(*writer);
  handle.stats = *writer->stats();
  handle.position = writer->session().position();
  return result;
}

struct Prefill {
  const Forward& forward;
  bool operator()(Writer& writer) const { return writer.prefill(); }
  bool operator()(Generator& generator) const { return generator.prefill(forward); }
};

struct Next {
  const Forward& forward;
  std::optional<std::string> operator()(Writer& writer) const { return writer.next(); }
  std::optional<std::string> operator()(Generator& generator) const { return generator.next(forward); }
};

// False when the prompt was not read to its end because somebody cancelled.
bool read_prompt(GeneratorHandle& handle) {
  for (bool more = true; more;) {
    check_signals();
    if (handle.is_cancelled()) return false;
    more = advance(handle, Prefill{handle.forward});
  }
  return true;
}

void prefill(GeneratorHandle& handle) {
  const Turn turn(handle);
  read_prompt(handle);
}

// The next piece that is not empty: a held-back one says nothing to the caller.
std::string next(GeneratorHandle& handle) {
  const Turn turn(handle);
  if (handle.stats.finish != FinishReason::kNone) throw py::stop_iteration();
  if (!read_prompt(handle)) throw py::stop_iteration();
  while (true) {
    check_signals();
    if (handle.is_cancelled()) throw py::stop_iteration();
    const std::optional<std::string> piece = advance(handle, Next{handle.forward});
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
    case FinishReason::kNone:
      break;
  }
  return handle.is_cancelled() ? "cancelled" : "unfinished";
}

}  // namespace

SamplerOptions sampler_options(double temperature, int64_t top_k, double top_p, double min_p,
                               double repetition_penalty, int64_t repetition_window, uint64_t seed) {
  return {.temperature = static_cast<float>(temperature),
          .top_k = narrow(top_k, "top_k"),
          .top_p = static_cast<float>(top_p),
          .min_p = static_cast<float>(min_p),
          .repetition_penalty = static_cast<float>(repetition_penalty),
          .repetition_window = narrow(repetition_window, "repetition_window"),
          .seed = seed};
}

void bind_generator(py::module_& m) {
  py::class_<GeneratorHandle>(m, "Generator")
      .def(py::init(&create), py::arg("model"), py::arg("vocab_size"), py::arg("tokenizer").none(false),
           py::arg("prompt"), py::kw_only(), py::arg("max_tokens"), py::arg("temperature"), py::arg("top_k"),
           py::arg("top_p"), py::arg("min_p"), py::arg("repetition_penalty"), py::arg("repetition_window"),
           py::arg("seed"), py::arg("stop"), py::arg("stop_ids"))
      .def_static("resume", &resume, py::arg("session"))
      .def("prefill", &prefill)
      .def("__iter__", [](py::object self) { return self; })
      .def("__next__", &next)
      .def("cancel", [](GeneratorHandle& h) { h.cancelled = true; })
      .def_property_readonly("finish_reason", &finish_reason)
      .def_property_readonly("prompt_tokens", [](const GeneratorHandle& h) { return h.stats.prompt_tokens; })
      .def_property_readonly("generated_tokens",
                             [](const GeneratorHandle& h) { return h.stats.generated_tokens; })
      .def_property_readonly("prefill_seconds",
                             [](const GeneratorHandle& h) { return h.stats.prefill_seconds; })
      .def_property_readonly("decode_seconds",
                             [](const GeneratorHandle& h) { return h.stats.decode_seconds; });
}

}  // namespace allmem::python
