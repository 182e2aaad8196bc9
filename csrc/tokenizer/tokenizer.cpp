// The public face: encode and decode over the parts of this folder.
#include "tokenizer/tokenizer.h"

#include <algorithm>
#include <unordered_map>

#include "platform/error.h"
#include "platform/mapped_file.h"
#include "platform/printable.h"
#include "tokenizer/added_tokens.h"
#include "tokenizer/bpe.h"
#include "tokenizer/config.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/pretokenizer.h"
#include "tokenizer/unicode.h"
#include "tokenizer/watch.h"

namespace allmem {
namespace {

constexpr size_t kMaxFileBytes = size_t{1} << 30;
// Positions in a piece are 31 bits, and NFKC makes a text up to 11 times as long (U+FDFA).
constexpr size_t kMaxTextBytes = size_t{1} << 27;
constexpr size_t kSlice = size_t{1} << 16;  // bytes that are looked at together

// What a token spells: bytes if the byte-level alphabet can write it, else its own text (as `tokenizers`
// decodes).
std::string spelled(const std::string& token) {
  if (auto bytes = bytes_of_byte_level(token)) return std::move(*bytes);
  return token;
}

struct GuardedText {
  std::string text;
  std::vector<PlainRange> plain;

  void append(std::string_view more, bool is_plain) {
    const size_t begin = text.size();
    text += more;
    if (!is_plain || more.empty()) return;
    if (!plain.empty() && plain.back().end == begin) {
      plain.back().end = text.size();
    } else {
      plain.push_back({begin, text.size()});
    }
  }
};

bool is_ascii(std::string_view text, Watch& watch) {
  return std::ranges::all_of(text, [&](char c) {
    watch.did(1);
    return static_cast<unsigned char>(c) < 0x80;
  });
}

GuardedText joined(std::span<const TextPart> parts, Watch& watch) {
  size_t size = 0;
  for (const TextPart& part : parts) size += std::min(part.text.size(), kMaxTextBytes + 1);
  if (size > kMaxTextBytes) {
    throw Error(ErrorCode::kInvalidArgument,
                "The text has " + std::to_string(size) + " bytes; encode at most 128 MiB at a time.");
  }
  GuardedText whole;
  whole.text.reserve(size);
  for (const TextPart& part : parts) {
    for (std::string_view left = part.text; !left.empty();) {
      std::string_view slice = left.substr(0, kSlice);
      if (slice.size() < left.size()) slice = slice.substr(0, complete_utf8_prefix(slice));
      watch.did(slice.size());
      whole.append(is_valid_utf8(slice) ? slice : replace_invalid_utf8(slice), part.plain);
      left.remove_prefix(slice.size());
    }
  }
  return whole;
}

// The ranges as they lie in [begin, begin + size).
std::vector<PlainRange> clipped(std::span<const PlainRange> ranges, size_t begin, size_t size) {
  std::vector<PlainRange> inside;
  auto range = std::ranges::lower_bound(ranges, begin + 1, {}, &PlainRange::end);
  for (; range != ranges.end() && range->begin < begin + size; ++range) {
    inside.push_back({std::max(range->begin, begin) - begin, std::min(range->end, begin + size) - begin});
  }
  return inside;
}

// Normalised range by range, as long as that is the whole normalised; else all of it counts as plain.
GuardedText normalized(std::string_view text, std::span<const PlainRange> plain,
                       std::span<const NormalForm> forms, Watch& watch) {
  GuardedText whole;
  whole.append(normalize(text, forms, watch), true);
  if (plain.empty()) return {.text = std::move(whole.text), .plain = {}};
  GuardedText parts;
  size_t done = 0;
  for (const PlainRange& range : plain) {
    parts.append(normalize(text.substr(done, range.begin - done), forms, watch), false);
    parts.append(normalize(text.substr(range.begin, range.end - range.begin), forms, watch), true);
    done = range.end;
  }
  parts.append(normalize(text.substr(done), forms, watch), false);
  return parts.text == whole.text ? parts : whole;
}

}  // namespace

struct Tokenizer::Impl {
  Impl(const TokenizerConfig& config, const std::string& name)
      : raw_added(config.added_tokens, false, config.normal_forms),
        normalized_added(config.added_tokens, true, config.normal_forms),
        normal_forms(config.normal_forms),
        pretokenizer(config, name),
        bpe(config),
        bytes(static_cast<size_t>(config.vocab_size)),
        special(static_cast<size_t>(config.vocab_size), false),
        prefix(config.prefix) {
    ids.reserve(bytes.size());
    Watch nobody;
    const auto add = [this](const std::string& token, size_t id) {
      if (token.empty()) return;
      bytes[id] = spelled(token);
      ids[token] = static_cast<int32_t>(id);
    };
    for (size_t id = 0; id < config.vocab.size(); ++id) add(config.vocab[id], id);
    for (const AddedToken& token : config.added_tokens) {
      const auto id = static_cast<size_t>(token.id);
      add(token.content, id);
      if (token.normalized) bytes[id] = spelled(normalize(token.content, config.normal_forms, nobody));
      special[id] = token.special;
    }
  }

  size_t index_of(int32_t id) const {
    if (id < 0 || static_cast<size_t>(id) >= bytes.size()) {
      throw Error(ErrorCode::kInvalidArgument, "Token id " + std::to_string(id) +
                                                   " is out of range: the tokenizer has " +
                                                   std::to_string(bytes.size()) + " ids.");
    }
    return static_cast<size_t>(id);
  }

  AddedTokens raw_added;         // looked for in the text as it came
  AddedTokens normalized_added;  // looked for in normalised text
  std::vector<NormalForm> normal_forms;
  PreTokenizer pretokenizer;
  Bpe bpe;
  std::vector<std::string> bytes;  // of each id; empty where no token has the id
  std::vector<bool> special;
  std::vector<int32_t> prefix;
  std::unordered_map<std::string, int32_t> ids;  // by the token as tokenizer.json spells it
};

Tokenizer::Tokenizer(std::unique_ptr<const Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::~Tokenizer() = default;

std::shared_ptr<const Tokenizer> Tokenizer::from_json(std::string_view json,
                                                      const std::string& name_for_errors) {
  const std::string name = printable(name_for_errors);
  const TokenizerConfig config = read_tokenizer_json(json, name);
  return std::shared_ptr<const Tokenizer>(new Tokenizer(std::make_unique<const Impl>(config, name)));
}

std::shared_ptr<const Tokenizer> Tokenizer::from_file(const std::string& path) {
  const MappedFile file(path);
  const std::span<const std::byte> bytes = file.bytes();
  if (bytes.size() > kMaxFileBytes)
    throw Error(ErrorCode::kBadTokenizer, printable(path) + " is larger than 1 GiB.");
  return from_json({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path);
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, bool special,
                                       const std::function<bool()>& go_on) const {
  const TextPart part{text, !special};
  return encode(std::span(&part, 1), go_on);
}

std::vector<int32_t> Tokenizer::encode(std::span<const TextPart> parts,
                                       const std::function<bool()>& go_on) const {
  Watch watch(go_on);
  const GuardedText whole = joined(parts, watch);
  watch.allow_steps_for(whole.text.size());
  std::vector<int32_t> out;
  out.reserve(whole.text.size() / 3);  // of a long text: fewer copies that take their time
  Bpe::Scratch scratch;
  const auto on_normalized = [&](std::string_view piece, int32_t id) {
    if (id >= 0) return out.push_back(id);
    impl_->pretokenizer.split(piece, watch,
                              [&](std::string_view word) { impl_->bpe.encode(word, scratch, watch, out); });
  };
  impl_->raw_added.split(whole.text, whole.plain, watch, [&](std::string_view piece, int32_t id) {
    if (id >= 0) return out.push_back(id);
    const auto begin = static_cast<size_t>(piece.data() - whole.text.data());
    const std::vector<PlainRange> plain = clipped(whole.plain, begin, piece.size());
    if (impl_->normal_forms.empty() || is_ascii(piece, watch))  // of which no form changes anything
      return impl_->normalized_added.split(piece, plain, watch, on_normalized);
    const GuardedText normal = normalized(piece, plain, impl_->normal_forms, watch);
    impl_->normalized_added.split(normal.text, normal.plain, watch, on_normalized);
  });
  return out;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  std::string bytes;
  for (const int32_t id : ids) {
    const size_t index = impl_->index_of(id);
    if (!skip_special || !impl_->special[index]) bytes += impl_->bytes[index];
  }
  return is_valid_utf8(bytes) ? bytes : replace_invalid_utf8(bytes);
}

std::string_view Tokenizer::token_bytes(int32_t id) const { return impl_->bytes[impl_->index_of(id)]; }

std::optional<int32_t> Tokenizer::token_id(std::string_view content) const {
  const auto found = impl_->ids.find(std::string(content));
  return found == impl_->ids.end() ? std::nullopt : std::optional(found->second);
}

bool Tokenizer::is_special(int32_t id) const { return impl_->special[impl_->index_of(id)]; }

std::vector<std::string> Tokenizer::special_tokens() const {
  std::vector<std::string> tokens;
  for (const auto& [token, id] : impl_->ids) {
    if (is_special(id)) tokens.push_back(token);
  }
  return tokens;
}

int32_t Tokenizer::vocab_size() const { return static_cast<int32_t>(impl_->bytes.size()); }

std::span<const int32_t> Tokenizer::prefix() const { return impl_->prefix; }

StreamDecoder::StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special)
    : tokenizer_(std::move(tokenizer)), skip_special_(skip_special) {}

std::string StreamDecoder::push(int32_t id) {
  const std::string_view bytes = tokenizer_->token_bytes(id);
  if (skip_special_ && tokenizer_->is_special(id)) return {};
  pending_ += bytes;
  const size_t settled = complete_utf8_prefix(pending_);
  std::string text = replace_invalid_utf8(std::string_view(pending_).substr(0, settled));
  pending_.erase(0, settled);
  return text;
}

std::string StreamDecoder::flush() {
  std::string text = replace_invalid_utf8(pending_);
  pending_.clear();
  return text;
}

}  // namespace allmem
