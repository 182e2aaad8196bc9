// Reads SHA256SUMS and compares. python/allmem_edge/checksums.py writes it, and reads the same.
#include "runtime/checksums.h"

#include <algorithm>
#include <set>
#include <string_view>

#include "platform/error.h"
#include "platform/printable.h"
#include "platform/sha256.h"

namespace allmem {

namespace {

constexpr const char* kList = "SHA256SUMS";
constexpr size_t kMaxList = size_t{1} << 20;
constexpr size_t kSmallBytes = size_t{16} << 20, kSmallBytesInAll = 4 * kSmallBytes;
constexpr size_t kDigits = 64;

std::string digits_of(const MappedFile& file) {
  std::string digits;
  for (const uint8_t byte : sha256(file.bytes())) {
    digits += "0123456789abcdef"[byte >> 4];
    digits += "0123456789abcdef"[byte & 15];
  }
  return digits;
}

[[noreturn]] void refuse(const std::string& sentence) {
  throw Error(ErrorCode::kBadModel, printable(sentence));
}

// A file's name inside a directory on every system, "/" between its parts.
bool is_plain_name(std::string_view name) {
  if (name.find_first_of(std::string_view("\\:\0", 3)) != std::string_view::npos) return false;
  for (size_t begin = 0; begin <= name.size();) {
    const size_t end = std::min(name.find('/', begin), name.size());
    const std::string_view part = name.substr(begin, end - begin);
    if (part.empty() || part == "." || part == "..") return false;
    begin = end + 1;
  }
  return true;
}

// Calls visit(digits, name) for every line, "DIGITS  NAME".
template <class Visit>
void for_each_line(const MappedFile& list, const Visit& visit) {
  std::string_view text(reinterpret_cast<const char*>(list.bytes().data()), list.bytes().size());
  const auto bad = [&] { refuse(list.path() + " is not a list of checksums; fetch the model again."); };
  if (text.empty() || text.size() > kMaxList) bad();
  std::set<std::string_view> names;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    const bool good = line.size() > kDigits + 2 && line[kDigits] == ' ' &&
                      (line[kDigits + 1] == ' ' || line[kDigits + 1] == '*') &&
                      line.find_first_not_of("0123456789abcdef") == kDigits;
    if (!good) bad();
    const std::string_view name = line.substr(kDigits + 2);
    if (!is_plain_name(name)) {
      refuse(list.path() + " names '" + std::string(name) +
             "', which is no plain path inside the model's directory; fetch the model again.");
    }
    if (!names.insert(name).second)
      refuse(list.path() + " names '" + std::string(name) + "' twice; fetch the model again.");
    visit(line.substr(0, kDigits), std::string(name));
  }
}

}  // namespace

void check_files(const FindFile& find, Check check, bool complete) {
  if (check == Check::kNone) return;
  const auto list = find(kList);
  if (!list) {
    if (check == Check::kSmall) return;
    throw Error(ErrorCode::kNotFound,
                "The model has no SHA256SUMS to compare its files with: it was made before there were any, "
                "or the file was left behind; make or fetch the model again, or load it without the check.");
  }
  size_t left = kSmallBytesInAll;
  for_each_line(*list, [&](std::string_view digits, const std::string& name) {
    if (check == Check::kSmall && !name.ends_with(".data")) return;
    const auto file = find(name);
    if (!file) {
      if (!complete || check == Check::kSmall) return;
      refuse("The model lacks " + name + ", which " + list->path() +
             " names: it was not copied or downloaded to its end; fetch it again.");
    }
    if (check == Check::kSmall) {
      const size_t size = file->bytes().size();
      if (size > kSmallBytes || size > left) return;
      left -= size;
    }
    if (digits_of(*file) != digits) {
      refuse(file->path() +
             " is not what SHA256SUMS says: it is damaged, or was changed after the model was "
             "made; fetch it again.");
    }
  });
}

}  // namespace allmem
