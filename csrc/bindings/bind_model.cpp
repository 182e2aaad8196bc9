// _core.Model: a loaded model and the facts about it.
#include <pybind11/stl.h>

#include "bindings/bindings.h"
#include "runtime/model.h"

namespace py = pybind11;

namespace allmem::python {

void bind_model(py::module_& m) {
  py::class_<StateInfo>(m, "StateInfo")
      .def_readonly("name", &StateInfo::name)
      .def_readonly("shape", &StateInfo::shape)
      .def_readonly("bytes", &StateInfo::bytes);

  // Held as non-const because pybind11's holders are; nothing here changes a model.
  py::class_<Model, std::shared_ptr<Model>>(m, "Model")
      .def(py::init([](const std::string& path, bool exact) {
             const py::gil_scoped_release release;
             return std::const_pointer_cast<Model>(
                 Model::load(path, exact ? Precision::kExact : Precision::kFast));
           }),
           py::arg("path"), py::arg("exact") = false)
      .def_property_readonly("vocab_size", [](const Model& model) { return model.info().vocab_size; })
      .def_property_readonly("window", [](const Model& model) { return model.info().window; })
      .def_property_readonly("sinks", [](const Model& model) { return model.info().sinks; })
      .def_property_readonly("chunk", [](const Model& model) { return model.info().chunk; })
      .def_property_readonly("layers", [](const Model& model) { return model.info().layers; })
      .def_property_readonly("quantization", [](const Model& model) { return model.info().quantization; })
      .def_property_readonly("weight_bytes", [](const Model& model) { return model.info().weight_bytes; })
      .def_property_readonly("state_bytes", [](const Model& model) { return model.info().state_bytes; })
      .def_property_readonly("states", [](const Model& model) { return model.info().states; });
}

}  // namespace allmem::python
