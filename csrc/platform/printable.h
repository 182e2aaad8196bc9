// Text of unknown origin, made fit for a message.
#pragma once

#include <string>
#include <string_view>

namespace allmem {

// `text` as valid UTF-8 on one line: control characters and invalid bytes become '?', and the middle of a
// very long text is left out.
std::string printable(std::string_view text);

}  // namespace allmem
