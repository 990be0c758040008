// The parser's callback sees every key as it is read: the only place where a key that comes twice can still be noticed.
#include "native/json.h"

#include <algorithm>
#include <new>
#include <unordered_set>
#include <vector>

namespace sala {

using nlohmann::json;

nlohmann::json parse_json(std::string_view text, const std::string& file, ErrorCode code) {
  // Containers nest in our formats at most four deep; far more is an attack on the stack of whoever walks the value.
  constexpr int kMaxDepth = 64;
  std::vector<std::unordered_set<std::string>> keys;  // of the objects that are open
  const auto check = [&](int depth, json::parse_event_t event, json& value) {
    if (depth > kMaxDepth) fail(code, file, ": expected JSON at most ", kMaxDepth, " levels deep");
    if (event == json::parse_event_t::object_start) keys.emplace_back();
    if (event == json::parse_event_t::object_end) keys.pop_back();
    if (event == json::parse_event_t::key && !keys.back().insert(value.get_ref<const std::string&>()).second) {
      fail(code, file, ": expected every key once, found ", json_text(value), " twice in one object");
    }
    return true;
  };
  try {
    return json::parse(text.begin(), text.end(), check);
  } catch (const json::exception& error) {
    std::string what = error.what();  // quotes the text as it is, broken UTF-8 too
    std::replace_if(what.begin(), what.end(), [](unsigned char c) { return c >= 0x80; }, '?');
    fail(code, file, ": expected JSON, found: ", what);
  } catch (const std::bad_alloc&) {
    fail(ErrorCode::out_of_memory, file, ": could not hold the JSON of ", text.size(), " bytes");
  }
}

std::string json_text(const json& value) {
  constexpr size_t kMaxChars = 60;
  std::string text =
      value.dump(-1, ' ', true, json::error_handler_t::replace);  // escaped to ASCII: safe to cut anywhere
  if (text.size() > kMaxChars) text.replace(kMaxChars - 3, std::string::npos, "...");
  return text;
}

}  // namespace sala
