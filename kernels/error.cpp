// The names of the error codes, as they cross the boundary to TypeScript and the command line.
#include "kernels/error.h"

namespace sala {

const char* error_code_name(ErrorCode code) {
  switch (code) {
    case ErrorCode::model_not_found: return "model_not_found";
    case ErrorCode::model_invalid: return "model_invalid";
    case ErrorCode::unsupported: return "unsupported";
    case ErrorCode::context_full: return "context_full";
    case ErrorCode::out_of_memory: return "out_of_memory";
    case ErrorCode::device_lost: return "device_lost";
    case ErrorCode::store_invalid: return "store_invalid";
    case ErrorCode::store_newer: return "store_newer";
    case ErrorCode::store_full: return "store_full";
    case ErrorCode::store_unwritable: return "store_unwritable";
    case ErrorCode::engine_unreachable: return "engine_unreachable";
    case ErrorCode::not_a_workspace: return "not_a_workspace";
    case ErrorCode::untrusted: return "untrusted";
    case ErrorCode::invalid_argument: return "invalid_argument";
    case ErrorCode::cancelled: return "cancelled";
    case ErrorCode::internal: return "internal";
  }
  return "internal";
}

void check_failed(const char* file, int line, const char* condition) {
  fail(ErrorCode::internal, file, ":", line, ": expected ", condition);
}

}  // namespace sala
