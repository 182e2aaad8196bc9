// _core.Model: a loaded model and the facts about it.
#include <pybind11/stl.h>

#include <deque>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings/bindings.h"
#include "runtime/model.h"
#include "runtime/snapshot.h"

namespace py = pybind11;

namespace allmem::python {
namespace {

// Memory of Python objects, which stays theirs and where it is until this is gone.
class Borrowed {
 public:
  Borrowed() = default;
  Borrowed(const Borrowed&) = delete;
  Borrowed& operator=(const Borrowed&) = delete;
  ~Borrowed() {
    const WithGil with;
    for (Py_buffer& view : views_) PyBuffer_Release(&view);
  }

  std::span<const std::byte> add(const py::object& object) {
    Py_buffer& view = views_.emplace_back();  // which must not move
    if (PyObject_GetBuffer(object.ptr(), &view, PyBUF_SIMPLE) != 0) {
      views_.pop_back();
      throw py::error_already_set();
    }
    return {static_cast<const std::byte*>(view.buf), static_cast<size_t>(view.len)};
  }

 private:
  std::deque<Py_buffer> views_;
};

// Calls a Python function from any thread. What it raises cannot go anywhere: Python reports it.
Log log_of(const std::optional<py::function>& function) {
  if (!function) return {};
  const std::shared_ptr<py::function> held(new py::function(*function), [](py::function* gone) {
    const WithGil with;
    delete gone;
  });
  return [held](const std::string& line) {
    const WithGil with;
    try {
      (*held)(line);
    } catch (py::error_already_set& error) {
      error.discard_as_unraisable("the log of a model");
    }
  };
}

using Tokens = std::optional<int64_t>;

Choices choices(bool exact, const Tokens& window, const Tokens& sinks, const Tokens& chunk,
                const std::string& memory) {
  Choices choices(exact ? Precision::kExact : Precision::kFast);
  choices.window = window;
  choices.sinks = sinks;
  choices.chunk = chunk;
  if (memory != "on" && memory != "frozen" && memory != "off") {
    throw Error(ErrorCode::kInvalidArgument, "The memory is '" + memory + "'; it must be on, frozen or off.");
  }
  choices.memory = memory == "on"       ? MemoryUse::kOn
                   : memory == "frozen" ? MemoryUse::kFrozen
                                        : MemoryUse::kOff;
  return choices;
}

// As Python says it: nothing is the default.
Check check_of(const std::optional<bool>& check) {
  if (!check) return Check::kSmall;
  return *check ? Check::kAll : Check::kNone;
}

// Held as non-const because pybind11's holders are; nothing here changes a model.
std::shared_ptr<Model> unconst(std::shared_ptr<const Model> model) {
  return std::const_pointer_cast<Model>(std::move(model));
}

std::shared_ptr<Model> load(const std::string& path, bool exact, const std::optional<py::function>& log,
                            const Tokens& window, const Tokens& sinks, const Tokens& chunk,
                            const std::string& memory, const std::optional<bool>& check) {
  const Choices chosen = choices(exact, window, sinks, chunk, memory);
  Log told = log_of(log);
  const WithoutGil without;
  return unconst(Model::load(path, chosen, std::move(told), check_of(check)));
}

std::shared_ptr<Model> from_memory(const std::vector<std::pair<std::string, py::object>>& files, bool exact,
                                   const std::optional<py::function>& log, const Tokens& window,
                                   const Tokens& sinks, const Tokens& chunk, const std::string& memory,
                                   const std::optional<bool>& check) {
  const Choices chosen = choices(exact, window, sinks, chunk, memory);
  auto borrowed = std::make_shared<Borrowed>();
  std::vector<std::unique_ptr<MappedFile>> pieces;
  pieces.reserve(files.size());
  for (const auto& [name, object] : files) {
    pieces.push_back(std::make_unique<MappedFile>(name, borrowed->add(object)));
  }
  Log told = log_of(log);
  const WithoutGil without;
  auto model = Model::load(std::move(pieces), chosen, std::move(told), check_of(check));
  Model* const raw = unconst(model).get();
  return {raw, [model = std::move(model), borrowed = std::move(borrowed)](Model*) mutable {
            model.reset();  // before what it borrows
            borrowed.reset();
          }};
}

std::shared_ptr<Model> from_fds(const std::vector<std::tuple<std::string, int, uint64_t, size_t>>& files,
                                bool exact, const std::optional<py::function>& log, const Tokens& window,
                                const Tokens& sinks, const Tokens& chunk, const std::string& memory,
                                const std::optional<bool>& check) {
  const Choices chosen = choices(exact, window, sinks, chunk, memory);
  std::vector<std::unique_ptr<MappedFile>> pieces;
  pieces.reserve(files.size());
  for (const auto& [name, fd, offset, size] : files) {
    pieces.push_back(std::make_unique<MappedFile>(name, fd, offset, size));
  }
  Log told = log_of(log);
  const WithoutGil without;
  return unconst(Model::load(std::move(pieces), chosen, std::move(told), check_of(check)));
}

}  // namespace

void bind_model(py::module_& m) {
  py::class_<StateInfo>(m, "StateInfo")
      .def_readonly("name", &StateInfo::name)
      .def_readonly("shape", &StateInfo::shape)
      .def_readonly("bytes", &StateInfo::bytes);

  py::class_<Model, std::shared_ptr<Model>>(m, "Model")
      .def(py::init(&load), py::arg("path"), py::arg("exact") = false, py::arg("log") = py::none(),
           py::arg("window") = py::none(), py::arg("sinks") = py::none(), py::arg("chunk") = py::none(),
           py::arg("memory") = "on", py::arg("check") = py::none())
      .def_static("from_memory", &from_memory, py::arg("files"), py::arg("exact") = false,
                  py::arg("log") = py::none(), py::arg("window") = py::none(), py::arg("sinks") = py::none(),
                  py::arg("chunk") = py::none(), py::arg("memory") = "on", py::arg("check") = py::none())
      .def_static("from_fds", &from_fds, py::arg("files"), py::arg("exact") = false,
                  py::arg("log") = py::none(), py::arg("window") = py::none(), py::arg("sinks") = py::none(),
                  py::arg("chunk") = py::none(), py::arg("memory") = "on", py::arg("check") = py::none())
      .def_property_readonly("vocab_size", [](const Model& model) { return model.info().vocab_size; })
      .def_property_readonly("window", [](const Model& model) { return model.info().window; })
      .def_property_readonly("sinks", [](const Model& model) { return model.info().sinks; })
      .def_property_readonly("chunk", [](const Model& model) { return model.info().chunk; })
      .def_property_readonly("memory", [](const Model& model) { return name_of(model.info().memory); })
      .def_property_readonly("chosen", [](const Model& model) { return model.info().chosen; })
      .def_property_readonly("layers", [](const Model& model) { return model.info().layers; })
      .def_property_readonly("quantization", [](const Model& model) { return model.info().quantization; })
      .def_property_readonly("fingerprint", [](const Model& model) { return fingerprint(model); })
      .def_property_readonly("weight_bytes", [](const Model& model) { return model.info().weight_bytes; })
      .def_property_readonly("state_bytes", [](const Model& model) { return model.info().state_bytes; })
      .def_property_readonly("states", [](const Model& model) { return model.info().states; });
}

}  // namespace allmem::python
