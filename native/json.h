// JSON from files that anybody may have written: a key twice in an object, a text that is too long, broken UTF-8 and
// every exception of the parser become an EngineError that names the file and the place.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "kernels/error.h"

namespace sala {

// Throws `code`; `file` appears in the message.
nlohmann::json parse_json(std::string_view text, const std::string& file, ErrorCode code);

// A value as messages show it: at most 60 characters, never throws.
std::string json_text(const nlohmann::json& value);

}  // namespace sala
