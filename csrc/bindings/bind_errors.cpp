// allmem::Error becomes the Python exception of its code, defined in allmem_edge/errors.py.
#include <exception>
#include <utility>

#include "bindings/bindings.h"

namespace py = pybind11;

namespace allmem::python {
namespace {

const char* class_name(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
      return "InvalidArgumentError";
    case ErrorCode::kNotFound:
      return "ModelNotFoundError";
    case ErrorCode::kIo:
      return "StorageError";
    case ErrorCode::kBadModel:
      return "ModelFormatError";
    case ErrorCode::kUnsupported:
      return "UnsupportedModelError";
    case ErrorCode::kBadTokenizer:
      return "TokenizerError";
    case ErrorCode::kCancelled:
      return "CancelledError";
    case ErrorCode::kBadSnapshot:
      return "SnapshotError";
    case ErrorCode::kPoisoned:
      return "PoisonedSessionError";
    case ErrorCode::kOutOfMemory:
      return "OutOfMemoryError";
    case ErrorCode::kConflict:
      return "ConflictError";
  }
  return "AllMemError";
}

// A sentence may quote bytes of a damaged file: they must not make the error itself fail.
py::str lenient_text(const char* text) {
  return py::reinterpret_steal<py::str>(PyUnicode_DecodeUTF8(
      text, static_cast<Py_ssize_t>(std::char_traits<char>::length(text)), "backslashreplace"));
}

}  // namespace

py::object exception_of(const Error& error) {
  const bool in_use = dynamic_cast<const InUseError*>(&error) != nullptr;
  const char* name = in_use ? "SessionInUseError" : class_name(error.code());
  return py::module_::import("allmem_edge.errors").attr(name)(lenient_text(error.what()));
}

void bind_errors() {
  py::register_local_exception_translator([](std::exception_ptr pending) {
    try {
      if (pending) std::rethrow_exception(std::move(pending));
    } catch (const Error& error) {
      const py::object exception = exception_of(error);
      PyErr_SetObject(py::type::of(exception).ptr(), exception.ptr());
    }
  });
}

}  // namespace allmem::python
