// Builds small ONNX files for tests, field by field, so that a test can also build wrong ones.
#pragma once

#include <cstdint>
#include <iterator>
#include <protozero/pbf_writer.hpp>
#include <string>
#include <utility>
#include <vector>

#include "temp_dir.h"

namespace allmem::test {

inline constexpr int kFloat = 1, kUint8 = 2, kInt32 = 6, kInt64 = 7, kFloat16 = 10;
inline constexpr int64_t kT = -1;  // the symbolic dimension

struct Attr {
  std::string bytes;
  static Attr i(const std::string& name, int64_t value) {
    return make(name, 2, [&](protozero::pbf_writer& w) { w.add_int64(3, value); });
  }
  static Attr f(const std::string& name, float value) {
    return make(name, 1, [&](protozero::pbf_writer& w) { w.add_float(2, value); });
  }
  static Attr s(const std::string& name, const std::string& value) {
    return make(name, 3, [&](protozero::pbf_writer& w) { w.add_bytes(4, value); });
  }
  static Attr ints(const std::string& name, const std::vector<int64_t>& values) {
    return make(name, 7, [&](protozero::pbf_writer& w) {
      for (const int64_t value : values) w.add_int64(8, value);
    });
  }
  static Attr floats(const std::string& name, const std::vector<float>& values) {
    return make(name, 6, [&](protozero::pbf_writer& w) {
      for (const float value : values) w.add_float(7, value);
    });
  }
  static Attr tensor(const std::string& name, const std::string& tensor_bytes) {
    return make(name, 4, [&](protozero::pbf_writer& w) { w.add_message(5, tensor_bytes); });
  }

 private:
  template <class Write>
  static Attr make(const std::string& name, int type, Write&& write) {
    Attr attr;
    protozero::pbf_writer w(attr.bytes);
    w.add_string(1, name);
    write(w);
    w.add_enum(20, type);
    return attr;
  }
};

template <class T>
std::string raw_bytes(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

inline std::string tensor_bytes(const std::string& name, int type, const std::vector<int64_t>& dims,
                                const std::string& raw) {
  std::string bytes;
  protozero::pbf_writer w(bytes);
  for (const int64_t dim : dims) w.add_int64(1, dim);
  w.add_int32(2, type);
  if (!name.empty()) w.add_string(8, name);
  w.add_bytes(9, raw);
  return bytes;
}

class OnnxBuilder {
 public:
  OnnxBuilder& input(const std::string& name, int type, const std::vector<int64_t>& dims) {
    add(graph_, 11, value_info(name, type, dims));
    return *this;
  }
  OnnxBuilder& output(const std::string& name, int type, const std::vector<int64_t>& dims) {
    add(graph_, 12, value_info(name, type, dims));
    return *this;
  }
  OnnxBuilder& floats(const std::string& name, const std::vector<int64_t>& dims,
                      const std::vector<float>& values) {
    return tensor(tensor_bytes(name, kFloat, dims, raw_bytes(values)));
  }
  // Float16 numbers as such, and NAME as the float32 that they are cast to.
  OnnxBuilder& halves(const std::string& name, const std::vector<int64_t>& dims,
                      const std::vector<uint16_t>& values) {
    return tensor(tensor_bytes(name + ".half", kFloat16, dims, raw_bytes(values)))
        .node("Cast", {name + ".half"}, {name}, {Attr::i("to", kFloat)});
  }
  OnnxBuilder& ints(const std::string& name, const std::vector<int64_t>& values) {
    return tensor(tensor_bytes(name, kInt64, {static_cast<int64_t>(values.size())}, raw_bytes(values)));
  }
  OnnxBuilder& bytes(const std::string& name, const std::vector<int64_t>& dims,
                     const std::vector<uint8_t>& values) {
    return tensor(tensor_bytes(name, kUint8, dims, raw_bytes(values)));
  }
  OnnxBuilder& tensor(const std::string& message) {
    add(graph_, 5, message);
    return *this;
  }
  OnnxBuilder& external(const std::string& name, int type, const std::vector<int64_t>& dims,
                        const std::vector<std::pair<std::string, std::string>>& entries) {
    std::string message;
    protozero::pbf_writer w(message);
    for (const int64_t dim : dims) w.add_int64(1, dim);
    w.add_int32(2, type);
    w.add_string(8, name);
    for (const auto& [key, value] : entries) w.add_message(13, entry(key, value));
    w.add_enum(14, 1);
    return tensor(message);
  }
  OnnxBuilder& node(const std::string& op, const std::vector<std::string>& inputs,
                    const std::vector<std::string>& outputs, const std::vector<Attr>& attributes = {},
                    const std::string& domain = "", const std::string& name = "") {
    std::string message;
    protozero::pbf_writer w(message);
    for (const std::string& input : inputs) w.add_string(1, input);
    for (const std::string& output : outputs) w.add_string(2, output);
    if (!name.empty()) w.add_string(3, name);
    w.add_string(4, op);
    for (const Attr& attribute : attributes) w.add_message(5, attribute.bytes);
    if (!domain.empty()) w.add_string(7, domain);
    add(graph_, 1, message);
    return *this;
  }
  OnnxBuilder& opset(const std::string& domain, int64_t version) {
    std::string message;
    protozero::pbf_writer w(message);
    if (!domain.empty()) w.add_string(1, domain);
    w.add_int64(2, version);
    add(rest_, 8, message);
    return *this;
  }
  OnnxBuilder& metadata(const std::string& key, const std::string& value) {
    add(rest_, 14, entry(key, value));
    return *this;
  }
  OnnxBuilder& function(const std::string& domain, const std::string& name) {
    std::string message;
    protozero::pbf_writer w(message);
    w.add_string(1, name);
    w.add_string(10, domain);
    add(rest_, 25, message);
    return *this;
  }
  OnnxBuilder& raw_graph_field(uint32_t tag, const std::string& message) {
    add(graph_, tag, message);
    return *this;
  }
  // The usual opsets and metadata.
  OnnxBuilder& defaults() {
    return opset("", 23).opset("allmem", 1).opset("com.microsoft", 1).metadata("allmem.format", "1");
  }

  std::string build() const {
    std::string bytes;
    protozero::pbf_writer w(bytes);
    w.add_int64(1, 10);  // ir_version
    w.add_message(7, graph_);
    return bytes + rest_;
  }

 private:
  static void add(std::string& to, uint32_t tag, const std::string& message) {
    protozero::pbf_writer(to).add_message(tag, message);
  }
  static std::string entry(const std::string& key, const std::string& value) {
    std::string message;
    protozero::pbf_writer w(message);
    w.add_string(1, key);
    w.add_string(2, value);
    return message;
  }
  static std::string value_info(const std::string& name, int type, const std::vector<int64_t>& dims) {
    std::string shape;
    for (const int64_t dim : dims) {
      std::string dimension;
      protozero::pbf_writer w(dimension);
      if (dim == kT) {
        w.add_string(2, "T");
      } else {
        w.add_int64(1, dim);
      }
      add(shape, 1, dimension);
    }
    std::string tensor, type_proto, message;
    protozero::pbf_writer t(tensor);
    t.add_int32(1, type);
    t.add_message(2, shape);
    add(type_proto, 1, tensor);
    protozero::pbf_writer w(message);
    if (!name.empty()) w.add_string(1, name);
    w.add_message(2, type_proto);
    return message;
  }

  std::string graph_, rest_;
};

}  // namespace allmem::test
