// What a call throws, for tests.
#pragma once

#include <functional>

#include "kernels/error.h"

namespace sala {

// The code of the EngineError that the call throws; internal if it throws none.
inline ErrorCode code_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const EngineError& error) {
    return error.code();
  }
  return ErrorCode::internal;
}

}  // namespace sala
