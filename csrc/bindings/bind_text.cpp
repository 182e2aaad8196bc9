// _core.ModelText: what a model's small files say; and the options of generating text as Python's dicts.
#include <pybind11/stl.h>

#include <limits>
#include <string>
#include <type_traits>
#include <utility>

#include "bindings/bindings.h"

namespace py = pybind11;

namespace allmem::python {
namespace {

[[noreturn]] void refuse(const std::string& name, py::handle value, const char* wanted) {
  PyErr_Clear();
  throw Error(ErrorCode::kInvalidArgument,
              name + " is " + std::string(py::repr(value)).substr(0, 100) + "; it must be " + wanted + ".");
}

double real(const std::string& name, py::handle value) {
  if (py::isinstance<py::bool_>(value)) refuse(name, value, "a number");
  const double number = PyFloat_AsDouble(value.ptr());
  if (number == -1.0 && PyErr_Occurred()) {
    refuse(name, value, PyErr_ExceptionMatches(PyExc_OverflowError) ? "a smaller number" : "a number");
  }
  return number;
}

template <class Integer>
Integer integer(const std::string& name, py::handle value) {
  if (!PyIndex_Check(value.ptr()) || py::isinstance<py::bool_>(value)) refuse(name, value, "an integer");
  const auto exact = py::reinterpret_steal<py::object>(PyNumber_Index(value.ptr()));
  if (!exact) refuse(name, value, "an integer");
  constexpr Integer kLow = std::numeric_limits<Integer>::min(), kHigh = std::numeric_limits<Integer>::max();
  if (exact < py::int_(kLow) || exact > py::int_(kHigh)) {
    const std::string range = "between " + std::to_string(kLow) + " and " + std::to_string(kHigh);
    refuse(name, value, range.c_str());
  }
  return exact.cast<Integer>();
}

template <class Number>
Number number(const std::string& name, py::handle value) {
  if constexpr (std::is_same_v<Number, bool>) {
    if (!py::isinstance<py::bool_>(value)) refuse(name, value, "True or False");
    return value.cast<bool>();
  } else if constexpr (std::is_floating_point_v<Number>) {
    return static_cast<Number>(real(name, value));
  } else {
    return integer<Number>(name, value);
  }
}

std::vector<std::string> texts(const std::string& name, py::handle value) {
  if (py::isinstance<py::str>(value)) return texts(name, py::make_tuple(value));
  if (!py::isinstance<py::sequence>(value) || py::isinstance<py::bytes>(value)) {
    refuse(name, value, "a string or a list of strings");
  }
  std::vector<std::string> all;
  for (const py::handle text : py::reinterpret_borrow<py::sequence>(value)) {
    if (!py::isinstance<py::str>(text)) refuse(name, value, "a string or a list of strings");
    Py_ssize_t size = 0;
    const char* const utf8 = PyUnicode_AsUTF8AndSize(text.ptr(), &size);
    if (utf8 == nullptr) refuse(name, py::repr(text), "valid Unicode, without lone surrogates");
    all.emplace_back(utf8, static_cast<size_t>(size));
  }
  return all;
}

std::vector<LogitBias> logit_bias(const std::string& name, py::handle value) {
  if (!py::isinstance<py::dict>(value)) refuse(name, value, "a dict of token ids and numbers");
  std::vector<LogitBias> all;
  for (const auto& [id, bias] : py::reinterpret_borrow<py::dict>(value)) {
    all.push_back({integer<int32_t>("A token of " + name, id), number<float>(name, bias)});
  }
  return all;
}

// Calls visit(name, field) for every option that Python has.
template <class Visit>
void each_option(GenerateOptions& options, const Visit& visit) {
  each_sampling_option(visit, options.sampling);
  visit("max_tokens", options.max_tokens);
  visit("stop", options.stop);
  visit("speculate", options.speculate);
  visit("logit_bias", options.sampling.logit_bias);
}

// `files`: by name, (the place that errors name, the content).
std::shared_ptr<ModelText> read(const py::dict& files, int64_t vocab_size) {
  const FindFile find = [&](const std::string& name) -> std::unique_ptr<MappedFile> {
    if (!files.contains(name.c_str())) return nullptr;
    const auto [place, content] = files[name.c_str()].cast<std::pair<std::string, std::string_view>>();
    return std::make_unique<MappedFile>(place, std::as_bytes(std::span(content)));
  };
  return std::make_shared<ModelText>(read_model_text(find, vocab_size));
}

}  // namespace

GenerateOptions generate_options(const py::dict& given) {
  GenerateOptions options = default_options();
  size_t known = 0;
  each_option(options, [&](const char* name, auto& option) {
    using Option = std::remove_reference_t<decltype(option)>;
    if (!given.contains(name)) return;
    const py::object value = given[name];
    ++known;
    if constexpr (std::is_same_v<Option, std::vector<std::string>>) {
      option = texts(name, value);
    } else if constexpr (std::is_same_v<Option, std::vector<LogitBias>>) {
      option = logit_bias(name, value);
    } else {
      option = number<Option>(name, value);
    }
  });
  if (known == given.size()) return options;
  const py::dict all = options_dict(options);
  for (const auto& [name, value] : given) {
    if (!all.contains(name)) {
      throw Error(ErrorCode::kInvalidArgument,
                  "There is no option " + std::string(py::repr(name)) +
                      "; the options of generating text are " +
                      std::string(py::str(", ").attr("join")(all).cast<py::str>()) + ".");
    }
  }
  return options;
}

py::dict options_dict(const GenerateOptions& options) {
  GenerateOptions copy = options;
  py::dict dict;
  each_option(copy, [&](const char* name, auto& option) {
    using Option = std::remove_reference_t<decltype(option)>;
    if constexpr (std::is_same_v<Option, std::vector<LogitBias>>) {
      py::dict bias;
      for (const LogitBias& of : option) bias[py::int_(of.id)] = of.bias;
      dict[name] = bias;
    } else if constexpr (std::is_same_v<Option, float>) {
      // The shortest decimal that is this float: 0.3 and not 0.30000001192092896.
      dict[name] = py::float_(py::module_::import("numpy").attr("float32")(option).attr("__str__")());
    } else {
      dict[name] = py::cast(option);
    }
  });
  return dict;
}

std::vector<int32_t> narrow_ids(const py::object& ids) {
  Ids numbers;
  try {
    const py::object all = PyIter_Check(ids.ptr()) ? py::object(py::list(ids)) : ids;
    const py::array array = py::module_::import("numpy").attr("asarray")(all);
    const bool integers = array.dtype().kind() == 'i' || array.dtype().kind() == 'u';
    if (array.ndim() != 1 || (!integers && array.size() > 0)) throw py::type_error("");
    numbers = array.attr("astype")("int64").cast<Ids>();
  } catch (const std::exception&) {  // whatever a stranger's object raises
    PyErr_Clear();
    const std::string type = py::str(py::type::of(ids).attr("__name__"));
    throw Error(ErrorCode::kInvalidArgument,
                "The tokens must be a flat list of integers, not this " + type + ".");
  }
  std::vector<int32_t> narrowed(static_cast<size_t>(numbers.size()));
  for (size_t i = 0; i < narrowed.size(); ++i) {
    const int64_t id = numbers.data()[i];
    if (!std::in_range<int32_t>(id)) {
      throw Error(ErrorCode::kInvalidArgument, "Token " + std::to_string(id) + " at index " +
                                                   std::to_string(i) + " is outside every vocabulary.");
    }
    narrowed[i] = static_cast<int32_t>(id);
  }
  return narrowed;
}

void bind_text(py::module_& m) {
  py::class_<ModelText, std::shared_ptr<ModelText>>(m, "ModelText")
      .def(py::init(&read), py::arg("files"), py::arg("vocab_size"))
      .def_property_readonly(
          "tokenizer",
          [](const ModelText& text) { return std::const_pointer_cast<Tokenizer>(text.tokenizer); })
      .def_property_readonly("stop_ids", [](const ModelText& text) { return text.defaults.stop_ids; })
      .def_readonly("prefix", &ModelText::prefix)
      .def_readonly("special_tokens", &ModelText::special_tokens)
      .def_property_readonly("sampling", [](const ModelText& text) { return options_dict(text.defaults); });
}

}  // namespace allmem::python
