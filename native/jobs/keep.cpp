#include "native/jobs/keep.h"

namespace sala {

bool KeepJob::step() {
  KeepResult result;
  try {
    if (engine_.segments_->keep_one()) return false;
  } catch (const EngineError& error) {
    result.failure = error;
    result.needed_bytes = engine_.segments_->refused_bytes();
  }
  engine_.update_memory();
  return deliver(std::move(result));
}

}  // namespace sala
