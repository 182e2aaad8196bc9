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

// A generator keeps its session alive and notices when somebody else moved it on.
struct GeneratorHandle {
  std::atomic<bool> busy = false;
  std::shared_ptr<SessionHandle> session;  // null when a Python function runs the model
  std::unique_ptr<Generator> generator;
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

Forward session_forward(std::shared_ptr<SessionHandle> handle) {
  uint64_t expected = handle->session->position();
  return [handle, expected](std::span<const int32_t> ids, LogitsFor which, std::span<float> logits) mutable {
    InUse session(*handle);
    if (session->position() != expected) {
      throw Error(
          ErrorCode::kInvalidArgument,
          "The session was used for something else while this text was being generated; start again.");
    }
    session->forward(ids, which, logits);
    expected = session->position();
  };
}

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
  auto handle = std::make_unique<GeneratorHandle>();
  Forward forward;
  if (py::isinstance<SessionHandle>(model)) {
    handle->session = py::cast<std::shared_ptr<SessionHandle>>(model);
    handle->session->cancelled = false;
    vocab_size = handle->session->session->model().info().vocab_size;
    forward = session_forward(handle->session);
  } else {
    forward = function_forward(py::cast<py::function>(model));
  }
  GenerateOptions options;
  options.sampling.temperature = static_cast<float>(temperature);
  options.sampling.top_k = narrow(top_k, "top_k");
  options.sampling.top_p = static_cast<float>(top_p);
  options.sampling.min_p = static_cast<float>(min_p);
  options.sampling.repetition_penalty = static_cast<float>(repetition_penalty);
  options.sampling.repetition_window = narrow(repetition_window, "repetition_window");
  options.sampling.seed = seed;
  options.max_tokens = max_tokens;
  options.stop = std::move(stop);
  options.stop_ids = narrow_all(stop_ids, "A stop id");
  handle->generator =
      std::make_unique<Generator>(std::move(forward), static_cast<size_t>(std::max<int64_t>(vocab_size, 0)),
                                  tokenizer, narrow_all(prompt, "A token"), options);
  return handle;
}

void forward_cancel(GeneratorHandle& handle) {
  if (handle.session && handle.session->cancelled) handle.generator->cancel();
}

void read_prompt(GeneratorHandle& handle) {
  for (bool more = true; more;) {
    check_signals();
    forward_cancel(handle);
    const py::gil_scoped_release release;
    more = handle.generator->prefill();
  }
}

void prefill(GeneratorHandle& handle) {
  const Turn turn(handle);
  read_prompt(handle);
}

// The next piece that is not empty: a held-back one says nothing to the caller.
std::string next(GeneratorHandle& handle) {
  const Turn turn(handle);
  read_prompt(handle);
  while (true) {
    check_signals();
    forward_cancel(handle);
    std::optional<std::string> piece;
    {
      const py::gil_scoped_release release;
      piece = handle.generator->next();
    }
    if (!piece) throw py::stop_iteration();
    if (!piece->empty()) return *piece;
  }
}

const char* finish_reason(const GeneratorHandle& handle) {
  switch (handle.generator->stats().finish) {
    case FinishReason::kStopToken:
      return "stop_token";
    case FinishReason::kStopString:
      return "stop_string";
    case FinishReason::kMaxTokens:
      return "max_tokens";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kNone:
      break;
  }
  return "unfinished";
}

}  // namespace

void bind_generator(py::module_& m) {
  py::class_<GeneratorHandle>(m, "Generator")
      .def(py::init(&create), py::arg("model"), py::arg("vocab_size"), py::arg("tokenizer").none(false),
           py::arg("prompt"), py::kw_only(), py::arg("max_tokens"), py::arg("temperature"), py::arg("top_k"),
           py::arg("top_p"), py::arg("min_p"), py::arg("repetition_penalty"), py::arg("repetition_window"),
           py::arg("seed"), py::arg("stop"), py::arg("stop_ids"))
      .def("prefill", &prefill)
      .def("__iter__", [](py::object self) { return self; })
      .def("__next__", &next)
      .def("cancel", [](GeneratorHandle& h) { h.generator->cancel(); })
      .def_property_readonly("finish_reason", &finish_reason)
      .def_property_readonly("prompt_tokens",
                             [](const GeneratorHandle& h) { return h.generator->stats().prompt_tokens; })
      .def_property_readonly("generated_tokens",
                             [](const GeneratorHandle& h) { return h.generator->stats().generated_tokens; })
      .def_property_readonly("prefill_seconds",
                             [](const GeneratorHandle& h) { return h.generator->stats().prefill_seconds; })
      .def_property_readonly("decode_seconds",
                             [](const GeneratorHandle& h) { return h.generator->stats().decode_seconds; });
}

}  // namespace allmem::python
