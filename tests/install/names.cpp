// A C++ program whose own names are those of the static library's insides: neither gets the other's.
#include <allmem/allmem.h>

#include <cstring>
#include <exception>
#include <string>

// Inline and with virtual functions, as in the library: a linker that saw both would keep only one of them.
namespace allmem {
struct Error : std::exception {
  explicit Error(std::string text) : text(std::move(text)) {}
  const char* what() const noexcept override { return "the host's error"; }
  std::string text;
};
}  // namespace allmem

namespace protozero {
struct exception : std::exception {
  const char* what() const noexcept override { return "the host's protobuf error"; }
};
struct end_of_buffer_exception : exception {
  const char* what() const noexcept override { return "the host's end"; }
};
}  // namespace protozero

template <typename T>
static bool says(const T& thrown, const char* expected) {
  try {
    throw thrown;
  } catch (const std::exception& error) {
    return std::strcmp(error.what(), expected) == 0;
  }
}

int main() {
  const unsigned char cut_short[] = {0x0A, 0x7F, 0x00};  // a field of 127 bytes, of which there is one
  const allmem_file file = {"model.onnx", cut_short, sizeof cut_short, -1, 0};
  allmem_model* model = nullptr;
  const int status = allmem_model_load_memory(&file, 1, nullptr, &model);
  const bool own_error = std::strstr(allmem_last_error(), "model.onnx") != nullptr;
  const bool host_errors = says(allmem::Error(""), "the host's error") &&
                           says(protozero::end_of_buffer_exception(), "the host's end");
  return status == ALLMEM_BAD_MODEL && own_error && host_errors ? 0 : 1;
}
