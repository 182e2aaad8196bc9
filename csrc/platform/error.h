// The one way in which the library reports that something is wrong: a typed exception with a sentence.
// It never leaves the C or Python boundary uncaught.
#pragma once

#include <stdexcept>
#include <string>

namespace allmem {

enum class ErrorCode {
  kInvalidArgument,  // the caller passed something the function's contract excludes
  kNotFound,         // a file or directory does not exist
  kIo,               // the system refused to read, write or map
  kBadModel,         // model.onnx or its data is damaged or inconsistent
  kUnsupported,      // well-formed, but needs something this runtime does not have
  kBadTokenizer,     // tokenizer.json is damaged or inconsistent
  kCancelled,        // stopped on request
  kBadSnapshot,      // a saved memory is damaged, or of another model or format
  kPoisoned,         // an earlier error left the session unusable until reset
  kOutOfMemory,      // a model or a session does not fit into memory
  kConflict,         // somebody else has changed a saved memory since, or it could not be loaded here
};

class Error : public std::runtime_error {
 public:
  // `message` is a full sentence: what was wrong, where (file, tensor, byte offset), what to do.
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ErrorCode code() const { return code_; }

 private:
  ErrorCode code_;
};

}  // namespace allmem
