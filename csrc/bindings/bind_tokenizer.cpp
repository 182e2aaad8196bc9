// Python's Tokenizer and StreamDecoder.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <utility>
#include <vector>

#include "runtime/chat_format.h"
#include "tokenizer/tokenizer.h"

namespace py = pybind11;

namespace allmem {
namespace {

// The UTF-8 of a str or the content of a bytes object. Surrogates of a str have no UTF-8: they pass as
// invalid bytes.
py::bytes utf8_of(const py::object& text) {
  if (py::isinstance<py::bytes>(text)) return text;
  if (!py::isinstance<py::str>(text)) throw py::type_error("text must be str or bytes");
  return text.attr("encode")("utf-8", "surrogatepass");
}

std::vector<int32_t> encode(const Tokenizer& tokenizer, const py::object& text, bool special) {
  const py::bytes utf8 = utf8_of(text);
  const std::string_view view = utf8;
  py::gil_scoped_release release;
  return tokenizer.encode(view, special);
}

}  // namespace

void bind_tokenizer(py::module_& module) {
  py::class_<Tokenizer, std::shared_ptr<Tokenizer>>(module, "Tokenizer",
                                                    "Byte-level BPE from Hugging Face's tokenizer.json.")
      .def_static(
          "from_file",
          [](const std::string& path) {
            return std::const_pointer_cast<Tokenizer>(Tokenizer::from_file(path));
          },
          py::arg("path"), py::call_guard<py::gil_scoped_release>())
      .def_static(
          "from_json",
          [](const py::bytes& json, const std::string& name) {
            const std::string_view view = json;
            const py::gil_scoped_release release;
            return std::const_pointer_cast<Tokenizer>(Tokenizer::from_json(view, name));
          },
          py::arg("json"), py::arg("name"), "From the content of tokenizer.json; errors say the name.")
      .def("encode", &encode, py::arg("text"), py::arg("special") = true,
           "Token ids of text; with special, strings of special tokens become their ids.")
      .def(
          "encode_parts",
          [](const Tokenizer& self, const std::vector<std::pair<std::string, bool>>& parts) {
            std::vector<TextPart> views;
            for (const auto& [text, plain] : parts) views.push_back({text, plain});
            const py::gil_scoped_release release;
            return self.encode(views);
          },
          py::arg("parts"),
          "Token ids of (text, plain) parts as of one text; in plain ones special tokens are text.")
      .def_property_readonly("special_tokens", &Tokenizer::special_tokens)
      .def(
          "decode",
          [](const Tokenizer& self, const std::vector<int32_t>& ids, bool skip_special) {
            return self.decode(ids, skip_special);
          },
          py::arg("ids"), py::arg("skip_special") = true, "Text of ids, invalid UTF-8 replaced by U+FFFD.")
      .def("token_id", &Tokenizer::token_id, py::arg("token"), "Id of a token's exact content, or None.")
      .def(
          "token_bytes", [](const Tokenizer& self, int32_t id) { return py::bytes(self.token_bytes(id)); },
          py::arg("id"), "The raw bytes of one token.")
      .def("is_special", &Tokenizer::is_special, py::arg("id"))
      .def_property_readonly("vocab_size", &Tokenizer::vocab_size);

  py::class_<ChatFormat>(module, "ChatFormat", "What chat_format.json says, as the C API uses it.")
      .def(py::init([](const py::bytes& json, const std::string& name, std::shared_ptr<Tokenizer> tokenizer) {
             return ChatFormat::from_json(json, name, std::move(tokenizer));
           }),
           py::arg("json"), py::arg("name"), py::arg("tokenizer").none(false))
      .def(
          "encode",
          [](const ChatFormat& self, const std::vector<std::pair<std::string, std::string>>& messages,
             bool continues) {
            std::vector<ChatMessage> views;
            for (const auto& [role, content] : messages) views.push_back({role, content});
            return self.encode(views, continues);
          },
          py::arg("messages"), py::arg("continues") = false,
          "Token ids of (role, content) messages and of the opening of the answer.");

  py::class_<StreamDecoder>(module, "StreamDecoder",
                            "Turns ids into text one by one, never splitting a character.")
      .def(py::init([](std::shared_ptr<Tokenizer> tokenizer, bool skip_special) {
             return StreamDecoder(std::move(tokenizer), skip_special);
           }),
           py::arg("tokenizer").none(false), py::arg("skip_special") = true)
      .def("push", &StreamDecoder::push, py::arg("id"), "The text that became complete with this token.")
      .def("flush", &StreamDecoder::flush, "What is left, incomplete bytes replaced by U+FFFD.");
}

}  // namespace allmem
