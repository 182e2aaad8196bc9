// Unicode normalisation of text before it is split.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "tokenizer/config.h"
#include "tokenizer/watch.h"

namespace allmem {

// `text` (valid UTF-8) after each of `forms` in order.
std::string normalize(std::string_view text, std::span<const NormalForm> forms, Watch& watch);

}  // namespace allmem
