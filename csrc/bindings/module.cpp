// The module allmem_edge._core: the native model, session, tokenizer and generate loop. Its types are
// described in python/allmem_edge/_core.pyi; users meet them through the package's own classes.
#include <pybind11/pybind11.h>

#include <tuple>

#include "bindings/bindings.h"
#include "runtime/isa.h"
#include "runtime/machine_speed.h"

PYBIND11_MODULE(_core_of_main, m) {
  m.attr("__name__") = "allmem_edge._core";
  m.doc() = "The native runtime of allmem_edge.";
  m.def("isa_name", &allmem::isa_name, "The instruction set of the kernels in use, e.g. 'avx2'.");
  m.def(
      "measure_machine",
      [](int threads, size_t bytes, bool exact) {
        const allmem::python::WithoutGil without;
        const allmem::MachineSpeed speed = allmem::measure_machine(threads, bytes, exact);
        return std::tuple(speed.read_bytes, speed.integer_operations, speed.floating_operations);
      },
      pybind11::arg("threads"), pybind11::arg("bytes"), pybind11::arg("exact"));
  allmem::python::bind_errors();
  allmem::python::bind_model(m);
  allmem::bind_tokenizer(m);
  allmem::python::bind_text(m);
  allmem::python::bind_session(m);
  allmem::python::bind_generator(m);
  allmem::python::bind_batch(m);
  const pybind11::cpp_function at_end(&allmem::python::end_of_interpreter);
  pybind11::module_::import("atexit").attr("register")(at_end);
}

// pybind11 asks for the main interpreter's lock while a module is made: in another one (mod_wsgi) that would
// wait for ever.
// NOLINTNEXTLINE(bugprone-reserved-identifier): the name that Python looks for
extern "C" PYBIND11_EXPORT PyObject* PyInit__core() {
  if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
    PyErr_SetString(
        PyExc_ImportError,
        "allmem_edge works in the main interpreter of a process alone, not in a sub-interpreter; with "
        "mod_wsgi, set WSGIApplicationGroup %{GLOBAL}.");
    return nullptr;
  }
  return PyInit__core_of_main();
}
