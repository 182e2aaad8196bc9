// SHA256SUMS of a model: the files as their makers wrote them, as `sha256sum -c` reads it too
// (docs/format.md).
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "platform/mapped_file.h"

namespace allmem {

enum class Check {
  kSmall,  // weights of up to 16 MiB, 64 MiB in all: they have no form of their own that would show a damage
  kAll,    // every file that the list names; a model without a list is refused
  kNone,
};

// The file of this name, or null. Throws as MappedFile does.
using FindFile = std::function<std::shared_ptr<const MappedFile>(const std::string& name)>;

// Compares a model's files with its SHA256SUMS. `complete`: all that the list names must be there, otherwise
// only what is there counts. Throws Error kBadModel for a file that differs or is missing, and kNotFound
// when there is no list and kAll is asked for.
void check_files(const FindFile& find, Check check, bool complete);

}  // namespace allmem
