#include "native/jobs/open.h"

#include <algorithm>

namespace sala {

namespace {

// Files read in one step: some 10 ms where they are in the page cache.
constexpr size_t kStepFiles = 64;
// What stays resident of one, generously: some hundred tokens of 64 bytes and a scale.
constexpr size_t kKeysBytes = size_t{64} << 10;

}  // namespace

OpenJob::OpenJob(Engine& engine, std::vector<SegmentKey> keys, Completion<OpenResult> done)
    : ResultJob(std::move(done)), engine_(engine), keys_(std::move(keys)) {
  result_.handles.reserve(keys_.size());
}

bool OpenJob::step() {
  engine_.memory_limit_.require(std::min(kStepFiles, keys_.size() - next_) * kKeysBytes, "keys of stored segments");
  for (const size_t end = std::min(next_ + kStepFiles, keys_.size()); next_ < end; ++next_) {
    std::optional<ErrorCode> refused;
    result_.handles.push_back(engine_.segments_->open(keys_[next_], refused));
    if (refused == ErrorCode::store_invalid) result_.damaged.push_back(keys_[next_]);
    if (refused == ErrorCode::store_newer) ++result_.n_newer;
  }
  if (next_ < keys_.size()) return false;
  engine_.update_memory();
  return deliver(std::move(result_));
}

void OpenJob::broken_off(const std::exception_ptr&) noexcept {
  for (int32_t handle : result_.handles) engine_.segments_->release(handle);
  engine_.update_memory();
}

}  // namespace sala
