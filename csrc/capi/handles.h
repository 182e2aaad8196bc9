// What the C API's files share: the objects behind the opaque handles, and the way an exception becomes a
// status.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "allmem/allmem.h"
#include "platform/error.h"
#include "platform/wipe.h"
#include "runtime/chat_format.h"
#include "runtime/model.h"
#include "runtime/writer.h"
#include "tokenizer/tokenizer.h"

namespace allmem::capi {

// A model with what belongs to its text; immutable, kept alive by the handle and by every session of it.
struct SharedModel {
  std::shared_ptr<const Model> model;
  std::shared_ptr<const Tokenizer> tokenizer;  // null: the model came without tokenizer.json
  std::optional<ChatFormat> chat;              // nothing without chat_format.json and ChatML's tokens
  std::vector<int32_t> stop_ids;
  allmem_sampling sampling = {};  // what generation_config.json asks for
  uint64_t fingerprint = 0;

  const std::shared_ptr<const Tokenizer>& text() const {
    if (!tokenizer) {
      throw Error(ErrorCode::kNotFound, "The model has no tokenizer.json; pass token ids, or add the file.");
    }
    return tokenizer;
  }
  const ChatFormat& chat_format() const {
    text();
    if (!chat) {
      throw Error(
          ErrorCode::kUnsupported,
          "The model has no chat_format.json and its tokens are not ChatML's; render its chat template "
          "yourself and encode it with allmem_tokenize().");
    }
    return *chat;
  }
};

int32_t fail(int32_t status, const char* sentence) noexcept;  // remembers it for allmem_last_error()
int32_t fail_from_exception() noexcept;                       // within a catch block

// Runs `body`, which may return a status or throw.
template <class Body>
int32_t guarded(Body&& body) noexcept {
  try {
    return body();
  } catch (...) {
    return fail_from_exception();
  }
}

inline void require(bool condition, const char* sentence) {
  if (!condition) throw Error(ErrorCode::kInvalidArgument, sentence);
}

// The largest size that a caller can mean: more would overflow a pointer difference.
template <class T>
std::span<const T> input(const T* data, size_t size, const char* what) {
  if (data == nullptr && size != 0) {
    throw Error(ErrorCode::kInvalidArgument, std::string(what) + " is NULL, but its size is not 0.");
  }
  if (size > static_cast<size_t>(PTRDIFF_MAX) / sizeof(T)) {
    throw Error(ErrorCode::kInvalidArgument, std::string(what) + " has a size that no memory can have.");
  }
  return {data, size};
}

std::string_view text_input(const char* text, size_t size, const char* what);
std::string path_input(const char* path);

inline int32_t too_small(size_t capacity, size_t needed) {
  return fail(ALLMEM_BUFFER_TOO_SMALL, ("The buffer has room for " + std::to_string(capacity) +
                                        " elements, but " + std::to_string(needed) + " are needed.")
                                           .c_str());
}

// Copies `values` to the caller's buffer, or says how large it must be.
template <class T>
int32_t output(std::span<const T> values, T* buffer, size_t capacity, size_t* count) {
  require(count != nullptr, "`count` is NULL; it receives the size that is needed.");
  *count = values.size();
  if (buffer == nullptr ? !values.empty() : capacity < values.size()) {
    return too_small(buffer == nullptr ? 0 : capacity, values.size());
  }
  if (!values.empty()) std::memcpy(buffer, values.data(), values.size_bytes());
  return ALLMEM_OK;
}

// A struct from the caller that begins with struct_size. Exactly this version's size, as none of these has
// another yet.
template <class T>
void check_struct(const T* value, const char* name) {
  if (value == nullptr) throw Error(ErrorCode::kInvalidArgument, std::string(name) + " is NULL.");
  if (value->struct_size != sizeof(T)) {
    throw Error(ErrorCode::kInvalidArgument, std::string(name) + "->struct_size is " +
                                                 std::to_string(value->struct_size) +
                                                 ", but this library's is " + std::to_string(sizeof(T)) +
                                                 "; set it to sizeof, or call the struct's _init function.");
  }
}

// The same for a struct of options that has grown: copies the caller's fields over the defaults in `to`.
// `earlier`: the sizes that it had before.
template <class T>
void read_struct(const T* given, const char* name, std::initializer_list<size_t> earlier, T& to) {
  if (given == nullptr || std::ranges::find(earlier, given->struct_size) == earlier.end()) {
    check_struct(given, name);
  }
  std::memcpy(&to, given, given->struct_size);
  to.struct_size = sizeof(T);
}

// Claims a handle for the scope of one call.
class Claim {
 public:
  explicit Claim(std::atomic<bool>& busy) : busy_(busy), held_(!busy.exchange(true)) {}
  ~Claim() {
    if (held_) busy_ = false;
  }
  Claim(const Claim&) = delete;
  Claim& operator=(const Claim&) = delete;
  bool held() const { return held_; }

 private:
  std::atomic<bool>& busy_;
  bool held_;
};

}  // namespace allmem::capi

struct allmem_model {
  std::shared_ptr<const allmem::capi::SharedModel> shared;
};

struct allmem_decoder {
  std::atomic<bool> busy = false;
  allmem::StreamDecoder decoder;
  int32_t vocab_size;
  std::string piece;
};

struct allmem_session {
  std::shared_ptr<const allmem::capi::SharedModel> shared;
  std::unique_ptr<allmem::Writer> writer;
  std::atomic<bool> busy = false;
  std::atomic<bool> cancelled = false;  // set from any thread, looked at between blocks of tokens
};

namespace allmem::capi {

// Runs `body` on a session that no other thread is using.
template <class Body>
int32_t with_session(allmem_session* handle, Body&& body) noexcept {
  return guarded([&]() -> int32_t {
    require(handle != nullptr, "The session is NULL.");
    const Claim claim(handle->busy);
    if (!claim.held()) {
      return fail(ALLMEM_IN_USE, "Another thread is using this session; give each thread its own.");
    }
    handle->cancelled = false;  // before anything else: a cancel during the call's first steps counts
    return body(*handle);
  });
}

SamplerOptions sampler_options(const allmem_sampling& sampling);
std::vector<int32_t> encode_messages(const SharedModel& model, std::span<const allmem_message> messages,
                                     bool continues);

}  // namespace allmem::capi
