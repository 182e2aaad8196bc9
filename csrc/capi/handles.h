// What the C API's files share: the objects behind the opaque handles, and the way an exception becomes a
// status.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#if __has_include(<cxxabi.h>)
#include <cxxabi.h>
#endif

#include "allmem/allmem.h"
#include "platform/claim.h"
#include "platform/error.h"
#include "platform/printable.h"
#include "platform/wipe.h"
#include "runtime/batch.h"
#include "runtime/chat_format.h"
#include "runtime/model.h"
#include "runtime/model_text.h"
#include "runtime/writer.h"
#include "tokenizer/tokenizer.h"

namespace allmem::capi {

// A model with what belongs to its text; immutable, kept alive by the handle and by every session of it.
struct SharedModel {
  std::shared_ptr<const Model> model;
  ModelText text;
  std::optional<ChatFormat> chat;  // nothing without chat_format.json and ChatML's tokens
  uint64_t fingerprint = 0;

  const std::shared_ptr<const Tokenizer>& tokenizer() const {
    if (!text.tokenizer) {
      throw Error(ErrorCode::kNotFound, "The model has no tokenizer.json; pass token ids, or add the file.");
    }
    return text.tokenizer;
  }
  const ChatFormat& chat_format() const {
    tokenizer();
    if (!chat) {
      throw Error(
          ErrorCode::kUnsupported,
          "The model has no chat_format.json and its tokens are not ChatML's; render its chat template "
          "yourself and encode it with allmem_tokenize().");
    }
    return *chat;
  }
};

int32_t status_of(ErrorCode code);
int32_t fail(int32_t status, const char* sentence) noexcept;  // remembers it for allmem_last_error()
int32_t fail_from_exception() noexcept;                       // within a catch block

// GCC hands a forced unwind to its handler as a null reference, which UndefinedBehaviorSanitizer reports.
#if defined(__GNUC__)
#define ALLMEM_CATCHES_FORCED_UNWIND __attribute__((no_sanitize("undefined")))
#else
#define ALLMEM_CATCHES_FORCED_UNWIND
#endif

// Runs `body`, which may return a status or throw.
template <class Body>
ALLMEM_CATCHES_FORCED_UNWIND int32_t guarded(Body&& body) {
  try {
    return body();
#if defined(__GLIBCXX__)
  } catch (__cxxabiv1::__forced_unwind&) {  // pthread_exit() in a callback: the thread ends, and nothing else
    throw;
#endif
  } catch (...) {
    return fail_from_exception();
  }
}

// Calls a callback of the host. What it throws ends the call as a cancel would.
template <class Callback, class... Arguments>
ALLMEM_CATCHES_FORCED_UNWIND auto call_host(Callback callback, Arguments... arguments) {
  const auto thrown = [](const std::string& what) {
    return Error(ErrorCode::kCancelled, "A callback threw " + what +
                                            "; callbacks must not throw, but return a "
                                            "value that ends the call.");
  };
  try {
    return callback(arguments...);
#if defined(__GLIBCXX__)
  } catch (__cxxabiv1::__forced_unwind&) {
    throw;
#endif
  } catch (const std::exception& error) {
    throw thrown("an exception (" + printable(error.what()) + ")");
  } catch (...) {
    throw thrown("something that is no std::exception");
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
    throw Error(ErrorCode::kInvalidArgument, std::string(what) + " is larger than the address space.");
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

// The sizes that a struct had in earlier releases, which programs compiled then pass: of each, the offset of
// the first field that came later.
constexpr std::array<size_t, 0> older_sizes(const void*) { return {}; }
constexpr std::array<size_t, 2> older_sizes(const allmem_sampling*) {
  return {offsetof(allmem_sampling, logit_bias), offsetof(allmem_sampling, speculate)};
}
constexpr std::array<size_t, 1> older_sizes(const allmem_generation*) {
  return {offsetof(allmem_generation, drafted_tokens)};
}
constexpr std::array<size_t, 1> older_sizes(const allmem_model_options*) {
  return {offsetof(allmem_model_options, window)};
}
constexpr std::array<size_t, 1> older_sizes(const allmem_session_options*) {
  return {offsetof(allmem_session_options, run_tasks)};
}

// A struct from the caller that begins with struct_size: of this release or of an earlier one.
template <class T>
void check_struct(const T* value, const char* name) {
  if (value == nullptr) throw Error(ErrorCode::kInvalidArgument, std::string(name) + " is NULL.");
  const auto older = older_sizes(value);
  if (value->struct_size != sizeof(T) &&
      std::find(older.begin(), older.end(), value->struct_size) == older.end()) {
    throw Error(ErrorCode::kInvalidArgument, std::string(name) + "->struct_size is " +
                                                 std::to_string(value->struct_size) +
                                                 ", but this library's is " + std::to_string(sizeof(T)) +
                                                 "; set it to sizeof, or call the struct's _init function.");
  }
}

// What an _init function that is called by its own name fills: the struct of programs from before there was
// another.
template <class T>
constexpr size_t first_size() {
  constexpr auto older = older_sizes(static_cast<const T*>(nullptr));
  return older.empty() ? sizeof(T) : *older.begin();
}

// As much of the defaults as the caller's struct has.
template <class T>
void init(T* to, size_t struct_size, T defaults) {
  if (to == nullptr || struct_size < sizeof defaults.struct_size) return;
  defaults.struct_size = struct_size;
  std::memcpy(to, &defaults, std::min(struct_size, sizeof defaults));
}

// The caller's options; what an earlier release did not have is as in `defaults`.
template <class T>
T taken(const T* value, const char* name, T defaults) {
  check_struct(value, name);
  std::memcpy(&defaults, value, value->struct_size);
  defaults.struct_size = sizeof defaults;
  return defaults;
}

// Fills the caller's struct, as much of it as there is.
template <class T>
void give(const T& facts, T* to, const char* name) {
  check_struct(to, name);
  const size_t size = to->struct_size;
  std::memcpy(to, &facts, size);
  to->struct_size = size;
}

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
  allmem::DrawHooks hooks = {};
  std::atomic<bool> busy = false;
};

struct allmem_batch {
  std::shared_ptr<const allmem::capi::SharedModel> shared;
  allmem::Batch batch;
  std::atomic<bool> busy = false;
};

namespace allmem::capi {

inline constexpr const char* kSessionInUse =
    "This session is in a call already, of another thread or the one whose callback this is; wait until it "
    "returns.";

// Runs `body` on a session that no other thread is using.
template <class Body>
int32_t with_session(allmem_session* handle, Body&& body) {
  return guarded([&]() -> int32_t {
    require(handle != nullptr, "The session is NULL.");
    const Claim claim(handle->busy);
    if (!claim.held()) return fail(ALLMEM_IN_USE, kSessionInUse);
    handle->writer->forget_cancel();  // before anything else: a cancel during the call's first steps counts
    return body(*handle);
  });
}

SessionOptions session_options(const allmem_session_options* options);  // NULL: the defaults
allmem_sampling sampling_of(const GenerateOptions& options);  // no stop texts: the caller's stay the caller's
SamplerOptions sampler_options(const allmem_sampling& sampling);
std::vector<int32_t> encode_messages(const SharedModel& model, std::span<const allmem_message> messages,
                                     bool continues, const std::function<bool()>& go_on = {});

}  // namespace allmem::capi
