// Python's Tokenizer, StreamDecoder and ChatFormat. Arguments of a wrong type are refused with a sentence.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "bindings/bindings.h"
#include "platform/error.h"
#include "runtime/chat_format.h"
#include "tokenizer/tokenizer.h"

namespace py = pybind11;

namespace allmem {
namespace {

[[noreturn]] void refuse(const char* what, const py::handle& got, const char* wanted) {
  const py::str type = py::type::handle_of(got).attr("__name__");
  throw Error(ErrorCode::kInvalidArgument,
              std::string(what) + " is of the type " + std::string(type) + "; pass " + wanted + ".");
}

// The UTF-8 of a str, or the content of bytes and the like. Surrogates of a str have no UTF-8: they pass as
// invalid bytes.
py::bytes utf8_of(const py::handle& text, const char* what) {
  if (py::isinstance<py::str>(text)) return text.attr("encode")("utf-8", "surrogatepass");
  if (PyObject_CheckBuffer(text.ptr()) == 0) refuse(what, text, "a str or bytes");
  return py::bytes(py::reinterpret_borrow<py::object>(py::module_::import("builtins").attr("bytes")(text)));
}

// The name of a file as the system has it: of a str, bytes or os.PathLike.
std::string path_of(const py::handle& path) {
  try {
    return py::cast<std::string>(py::module_::import("os").attr("fsencode")(path));
  } catch (py::error_already_set& error) {
    if (error.matches(PyExc_TypeError)) refuse("The path", path, "a str, bytes or a Path");
    throw;
  }
}

int32_t id_of(const py::handle& id) {
  if (PyIndex_Check(id.ptr()) == 0 || py::isinstance<py::bool_>(id)) refuse("A token id", id, "integers");
  const auto index = py::reinterpret_steal<py::object>(PyNumber_Index(id.ptr()));
  if (!index) throw py::error_already_set();
  int overflow = 0;
  const long long value = PyLong_AsLongLongAndOverflow(index.ptr(), &overflow);
  if (overflow != 0 || !std::in_range<int32_t>(value)) {
    throw Error(ErrorCode::kInvalidArgument,
                "The token id " + std::string(py::str(index)) + " is out of range.");
  }
  return static_cast<int32_t>(value);
}

// Without the interpreter's lock; Ctrl-C acts within milliseconds.
std::vector<int32_t> encode_views(const Tokenizer& tokenizer, std::span<const TextPart> parts) {
  const python::WithoutGil without;
  return tokenizer.encode(parts, python::go_on_unless_interrupted);
}

// Of pairs of a text and whether it is plain.
std::vector<int32_t> encode_parts(const Tokenizer& tokenizer, const py::object& parts) {
  constexpr const char* kWanted = "a list of pairs of a text and True or False";
  std::vector<py::bytes> texts;
  std::vector<bool> plain;
  try {
    for (const py::handle& part : parts) {
      const auto pair = py::cast<std::pair<py::object, bool>>(part);
      texts.push_back(utf8_of(pair.first, "A part"));
      plain.push_back(pair.second);
    }
  } catch (const py::cast_error&) {
    refuse("The list of parts", parts, kWanted);
  } catch (py::error_already_set& error) {
    if (error.matches(PyExc_TypeError)) refuse("The list of parts", parts, kWanted);
    throw;
  }
  std::vector<TextPart> views;
  for (size_t i = 0; i < texts.size(); ++i) views.push_back({std::string_view(texts[i]), plain[i]});
  return encode_views(tokenizer, views);
}

std::vector<int32_t> encode(const Tokenizer& tokenizer, const py::object& text, bool special) {
  const py::bytes utf8 = utf8_of(text, "The text");
  const TextPart part{std::string_view(utf8), !special};
  return encode_views(tokenizer, std::span(&part, 1));
}

std::shared_ptr<Tokenizer> from_file(const py::object& path) {
  const std::string name = path_of(path);
  const python::WithoutGil without;
  return std::const_pointer_cast<Tokenizer>(Tokenizer::from_file(name));
}

std::shared_ptr<Tokenizer> from_json(const py::object& json, const py::object& name) {
  const py::bytes content = utf8_of(json, "The content"), name_bytes = utf8_of(name, "The name");
  const std::string_view view = content;
  const std::string name_for_errors(name_bytes);
  const python::WithoutGil without;
  return std::const_pointer_cast<Tokenizer>(Tokenizer::from_json(view, name_for_errors));
}

std::vector<int32_t> encode_messages(const ChatFormat& format,
                                     const std::vector<std::pair<std::string, std::string>>& messages,
                                     bool continues) {
  std::vector<ChatMessage> views;
  views.reserve(messages.size());
  for (const auto& [role, content] : messages) views.push_back({role, content});
  return format.encode(views, continues, python::go_on_unless_interrupted);
}

}  // namespace

void bind_tokenizer(py::module_& module) {
  py::class_<Tokenizer, std::shared_ptr<Tokenizer>>(module, "Tokenizer",
                                                    "Byte-level BPE from Hugging Face's tokenizer.json.")
      .def_static("from_file", &from_file, py::arg("path"))
      .def_static("from_json", &from_json, py::arg("json"), py::arg("name"),
                  "From the content of tokenizer.json; errors say the name.")
      .def("encode", &encode, py::arg("text"), py::arg("special") = true,
           "Token ids of text; with special, strings of special tokens become their ids.")
      .def("encode_parts", &encode_parts, py::arg("parts"),
           "Token ids of (text, plain) parts as of one text; in plain ones special tokens are text.")
      .def_property_readonly("special_tokens", &Tokenizer::special_tokens)
      .def(
          "decode",
          [](const Tokenizer& self, const py::object& ids, bool skip_special) {
            return self.decode(python::narrow_ids(ids), skip_special);
          },
          py::arg("ids"), py::arg("skip_special") = true, "Text of ids, invalid UTF-8 replaced by U+FFFD.")
      .def(
          "token_id",
          [](const Tokenizer& self, const py::object& token) {
            return self.token_id(std::string_view(utf8_of(token, "The token")));
          },
          py::arg("token"), "Id of a token's exact content, or None.")
      .def(
          "token_bytes",
          [](const Tokenizer& self, const py::object& id) { return py::bytes(self.token_bytes(id_of(id))); },
          py::arg("id"), "The raw bytes of one token.")
      .def(
          "is_special",
          [](const Tokenizer& self, const py::object& id) { return self.is_special(id_of(id)); },
          py::arg("id"))
      .def_property_readonly("vocab_size", &Tokenizer::vocab_size);

  py::class_<ChatFormat>(module, "ChatFormat", "What chat_format.json says, as the C API uses it.")
      .def(py::init([](const py::bytes& json, const std::string& name, std::shared_ptr<Tokenizer> tokenizer) {
             return ChatFormat::from_json(json, name, std::move(tokenizer));
           }),
           py::arg("json"), py::arg("name"), py::arg("tokenizer").none(false))
      .def("encode", &encode_messages, py::arg("messages"), py::arg("continues") = false,
           "Token ids of (role, content) messages and of the opening of the answer.");

  py::class_<StreamDecoder>(module, "StreamDecoder",
                            "Turns ids into text one by one, never splitting a character.")
      .def(py::init([](std::shared_ptr<Tokenizer> tokenizer, bool skip_special) {
             return StreamDecoder(std::move(tokenizer), skip_special);
           }),
           py::arg("tokenizer").none(false), py::arg("skip_special") = true)
      .def(
          "push", [](StreamDecoder& self, const py::object& id) { return self.push(id_of(id)); },
          py::arg("id"), "The text that became complete with this token.")
      .def("flush", &StreamDecoder::flush, "What is left, incomplete bytes replaced by U+FFFD.");
}

}  // namespace allmem
