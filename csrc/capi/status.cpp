// Status codes, the sentence of the last failure, and the facts about the library itself.
#include <algorithm>
#include <exception>
#include <new>
#include <stdexcept>

#include "capi/handles.h"
#include "runtime/isa.h"

namespace allmem::capi {
namespace {

thread_local char last_error[1024] = "";  // fixed: reporting that memory is short must not need memory

}  // namespace

int32_t status_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
      return ALLMEM_INVALID_ARGUMENT;
    case ErrorCode::kNotFound:
      return ALLMEM_NOT_FOUND;
    case ErrorCode::kIo:
      return ALLMEM_IO;
    case ErrorCode::kBadModel:
      return ALLMEM_BAD_MODEL;
    case ErrorCode::kUnsupported:
      return ALLMEM_UNSUPPORTED;
    case ErrorCode::kBadTokenizer:
      return ALLMEM_BAD_TOKENIZER;
    case ErrorCode::kCancelled:
      return ALLMEM_CANCELLED;
    case ErrorCode::kBadSnapshot:
      return ALLMEM_BAD_SNAPSHOT;
    case ErrorCode::kPoisoned:
      return ALLMEM_POISONED;
    case ErrorCode::kOutOfMemory:
      return ALLMEM_OUT_OF_MEMORY;
    case ErrorCode::kConflict:
      return ALLMEM_CONFLICT;
  }
  return ALLMEM_INTERNAL;
}

int32_t fail(int32_t status, const char* sentence) noexcept {
  size_t size = std::min(std::strlen(sentence), sizeof last_error - 1);
  while (size < std::strlen(sentence) && size > 0 && (sentence[size] & 0xC0) == 0x80)
    --size;  // whole characters
  std::memcpy(last_error, sentence, size);
  last_error[size] = '\0';
  return status;
}

int32_t fail_from_exception() noexcept {
  try {
    throw;
  } catch (const Error& error) {
    return fail(status_of(error.code()), error.what());
  } catch (const std::bad_alloc&) {
    return fail(ALLMEM_OUT_OF_MEMORY, "There is not enough memory.");
  } catch (const std::length_error&) {
    return fail(ALLMEM_OUT_OF_MEMORY, "There is not enough memory.");
  } catch (const std::exception& error) {
    return fail(ALLMEM_INTERNAL, error.what());
  } catch (...) {
    return fail(ALLMEM_INTERNAL, "An unknown exception was thrown.");
  }
}

std::string_view text_input(const char* text, size_t size, const char* what) {
  if (size == ALLMEM_NUL_TERMINATED) {
    if (text == nullptr) throw Error(ErrorCode::kInvalidArgument, std::string(what) + " is NULL.");
    return text;
  }
  const auto bytes = input(text, size, what);
  return {bytes.data(), bytes.size()};
}

std::string path_input(const char* path) {
  require(path != nullptr && *path != '\0', "The path is NULL or empty.");
  return path;
}

}  // namespace allmem::capi

using allmem::capi::guarded;

const char* allmem_version(void) { return ALLMEM_VERSION; }

int32_t allmem_abi_version(void) { return ALLMEM_ABI_VERSION; }

const char* allmem_last_error(void) { return allmem::capi::last_error; }

const char* allmem_status_name(int32_t status) {
  static constexpr const char* kNames[] = {"ALLMEM_OK",
                                           "ALLMEM_INVALID_ARGUMENT",
                                           "ALLMEM_NOT_FOUND",
                                           "ALLMEM_IO",
                                           "ALLMEM_BAD_MODEL",
                                           "ALLMEM_UNSUPPORTED",
                                           "ALLMEM_BAD_TOKENIZER",
                                           "ALLMEM_CANCELLED",
                                           "ALLMEM_BAD_SNAPSHOT",
                                           "ALLMEM_POISONED",
                                           "ALLMEM_BUFFER_TOO_SMALL",
                                           "ALLMEM_IN_USE",
                                           "ALLMEM_OUT_OF_MEMORY",
                                           "ALLMEM_INTERNAL",
                                           "ALLMEM_CONFLICT"};
  return status >= 0 && static_cast<size_t>(status) < std::size(kNames) ? kNames[status] : "unknown status";
}

const char* allmem_isa(void) {
  const char* name = "";
  guarded([&] {
    name = allmem::isa_name();
    return ALLMEM_OK;
  });
  return name;
}
