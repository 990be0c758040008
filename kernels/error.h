// Errors of the whole native side: one exception type, one code list, in the lowest layer so that all may throw it.
// The codes are the closed list that extension/engine/errors.ts repeats; test/extension/errors.test.ts compares the two.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace sala {

enum class ErrorCode {
  model_not_found,
  model_invalid,
  unsupported,
  context_full,
  out_of_memory,
  device_lost,
  store_invalid,
  store_newer,
  store_full,
  store_unwritable,
  engine_unreachable,
  not_a_workspace,
  untrusted,
  invalid_argument,
  cancelled,
  internal,
};

const char* error_code_name(ErrorCode code);

// A message says what was expected, what was found, and where.
class EngineError : public std::runtime_error {
 public:
  EngineError(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ErrorCode code() const { return code_; }

 private:
  ErrorCode code_;
};

// Throws EngineError(code, all further arguments streamed into one text).
template <class... Parts>
[[noreturn]] void fail(ErrorCode code, const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  throw EngineError(code, text.str());
}

// What CHECK calls, out of line: the units of kernels/cpu must not instantiate the streams of fail().
[[noreturn]] void check_failed(const char* file, int line, const char* condition);

}  // namespace sala

// A broken precondition inside our own code: never for bad input, which gets a code and a message of its own. Tests include
// doctest first, whose CHECK then stands.
#ifndef CHECK
#define CHECK(condition)                                                      \
  do {                                                                        \
    if (!(condition)) ::sala::check_failed(__FILE__, __LINE__, #condition);   \
  } while (0)
#endif
