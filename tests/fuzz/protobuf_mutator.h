// Mutates a protobuf message as a tree of fields, so that lengths stay right and the change lands in a
// field's meaning; of the wire format it knows tags, varints and lengths, of ONNX nothing.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace allmem::fuzz {

class ProtobufMutator {
 public:
  explicit ProtobufMutator(unsigned seed) : random_(seed) {}

  // `message` with one field changed, removed, repeated or moved; of at most `room` bytes more.
  std::string mutated(std::string_view message, size_t room) {
    std::optional<std::vector<Field>> fields = parse(message);
    if (!fields || fields->empty() || below(16) == 0) return scrambled(message, room);
    Field& field = (*fields)[below(fields->size())];
    switch (below(12)) {
      case 0:
        fields->erase(fields->begin() + (&field - fields->data()));
        break;
      case 1:
        if (field.value.size() + 11 <= room) fields->push_back(field);
        break;
      case 2:
        std::swap(field, (*fields)[below(fields->size())]);
        break;
      case 3:
        field.tag = below(4) == 0 ? random_() % (40 << 3) : (field.tag & 7) | below(32) << 3;
        break;
      default:
        field.value = (field.tag & 7) == 0   ? varint(interesting(field.value))
                      : (field.tag & 7) == 2 ? mutated(field.value, room)
                                             : scrambled(field.value, 0);
    }
    std::string bytes;
    for (const Field& f : *fields) {
      bytes += varint(f.tag);
      if ((f.tag & 7) == 2) bytes += varint(f.value.size());
      bytes += f.value;
    }
    return bytes;
  }

 private:
  struct Field {
    uint64_t tag;       // number << 3 | wire type
    std::string value;  // without the length
  };

  size_t below(size_t limit) { return random_() % limit; }

  static std::optional<uint64_t> take_varint(std::string_view& bytes) {
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64 && !bytes.empty(); shift += 7) {
      const auto byte = static_cast<uint8_t>(bytes[0]);
      bytes.remove_prefix(1);
      value |= uint64_t{byte & 0x7Fu} << shift;
      if (byte < 0x80) return value;
    }
    return std::nullopt;
  }

  static std::string varint(uint64_t value) {
    std::string bytes;
    for (; value >= 0x80; value >>= 7) bytes += static_cast<char>(value | 0x80);
    return bytes + static_cast<char>(value);
  }

  // None when `bytes` is no message.
  static std::optional<std::vector<Field>> parse(std::string_view bytes) {
    std::vector<Field> fields;
    while (!bytes.empty()) {
      const auto tag = take_varint(bytes);
      if (!tag || *tag < 8) return std::nullopt;
      size_t size = (*tag & 7) == 1 ? 8 : 4;
      if ((*tag & 7) == 0) {
        const std::string_view before = bytes;
        if (!take_varint(bytes)) return std::nullopt;
        fields.push_back({*tag, std::string(before.substr(0, before.size() - bytes.size()))});
        continue;
      }
      if ((*tag & 7) == 2) {
        const auto length = take_varint(bytes);
        if (!length) return std::nullopt;
        size = *length;
      } else if ((*tag & 7) != 1 && (*tag & 7) != 5) {
        return std::nullopt;
      }
      if (size > bytes.size()) return std::nullopt;
      fields.push_back({*tag, std::string(bytes.substr(0, size))});
      bytes.remove_prefix(size);
    }
    return fields;
  }

  uint64_t interesting(std::string_view old) {
    const uint64_t value = take_varint(old).value_or(0);
    switch (below(6)) {
      case 0:
        return value + 1;
      case 1:
        return value - 1;
      case 2:
        return below(300);
      case 3:
        return ~uint64_t{0} - below(3);
      case 4:
        return uint64_t{1} << below(64);
      default:
        return value * (1 + below(4));
    }
  }

  std::string scrambled(std::string_view bytes, size_t room) {
    std::string buffer(bytes);
    buffer.resize(std::max<size_t>(1, bytes.size() + std::min<size_t>(room, 64)));
    buffer.resize(LLVMFuzzerMutate(reinterpret_cast<uint8_t*>(buffer.data()), bytes.size(), buffer.size()));
    return buffer;
  }

  std::minstd_rand random_;
};

}  // namespace allmem::fuzz
