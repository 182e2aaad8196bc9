// Byte-level BPE as Hugging Face's tokenizer.json describes it: text ⇄ ids.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "platform/wipe.h"

namespace allmem {

// A part of a text. In a plain one special tokens are plain text, also where they reach into the next part.
struct TextPart {
  std::string_view text;
  bool plain = false;
};

// Immutable after load; safe to share between threads.
class Tokenizer {
 public:
  // `json` is the content of tokenizer.json. Throws Error (kBadTokenizer, or kUnsupported when well-formed
  // but using a component this tokenizer does not have, which the sentence names).
  static std::shared_ptr<const Tokenizer> from_json(std::string_view json,
                                                    const std::string& name_for_errors);
  static std::shared_ptr<const Tokenizer> from_file(const std::string& path);
  ~Tokenizer();

  // Ids of `text` (UTF-8; each invalid byte sequence is read as U+FFFD, as Python's errors="replace" does).
  // With `special`, strings of special tokens in the text become their ids; without, they are plain text.
  // `go_on` is asked now and then while a long text is encoded; false is Error (kCancelled).
  std::vector<int32_t> encode(std::string_view text, bool special = true,
                              const std::function<bool()>& go_on = {}) const;
  // Ids of the parts together, as of one text.
  std::vector<int32_t> encode(std::span<const TextPart> parts, const std::function<bool()>& go_on = {}) const;

  // Text of `ids`, invalid UTF-8 replaced by U+FFFD. Ids out of range throw Error (kInvalidArgument).
  std::string decode(std::span<const int32_t> ids, bool skip_special = true) const;

  // The raw bytes of one token (a special token's own text); may be a part of a UTF-8 character.
  std::string_view token_bytes(int32_t id) const;
  std::optional<int32_t> token_id(
      std::string_view content) const;  // exact vocabulary or special-token content
  bool is_special(int32_t id) const;
  std::vector<std::string> special_tokens() const;  // their contents, in no order
  int32_t vocab_size() const;                       // including added tokens
  // What the file's post-processor puts in front of a text, mostly nothing or BOS; encode() does not.
  std::span<const int32_t> prefix() const;

 private:
  struct Impl;
  explicit Tokenizer(std::unique_ptr<const Impl> impl);
  std::unique_ptr<const Impl> impl_;
};

// Turns ids into text one by one, never splitting a UTF-8 character.
class StreamDecoder {
 public:
  explicit StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special = true);
  std::string push(int32_t id);  // the text that became complete with this token
  std::string flush();           // what is left, incomplete bytes replaced by U+FFFD

  // The bytes of a character that is not complete yet, and their return: all that a decoder remembers.
  std::string_view pending() const { return pending_; }
  void set_pending(std::string_view bytes) { pending_ = bytes; }
  const std::shared_ptr<const Tokenizer>& tokenizer() const { return tokenizer_; }

 private:
  std::shared_ptr<const Tokenizer> tokenizer_;
  bool skip_special_;
  WipedString pending_;
};

}  // namespace allmem
