#include "native/jobs/open.h"

#include <algorithm>

namespace sala {

namespace {

// Read in one step: some milliseconds where they are in the page cache.
constexpr size_t kStepSegments = 64;
// What stays resident of one, generously: some hundred tokens of 64 bytes and a scale.
constexpr size_t kKeysBytes = size_t{64} << 10;

}  // namespace

OpenJob::OpenJob(Engine& engine, std::vector<SegmentKey> keys, Completion<std::vector<int32_t>> done)
    : ResultJob(std::move(done)), engine_(engine), keys_(std::move(keys)) {
  handles_.reserve(keys_.size());
}

bool OpenJob::step() {
  engine_.memory_limit_.require(std::min(kStepSegments, keys_.size() - next_) * kKeysBytes, "keys of stored segments");
  for (const size_t end = std::min(next_ + kStepSegments, keys_.size()); next_ < end; ++next_) handles_.push_back(engine_.segments_->open(keys_[next_]));
  if (next_ < keys_.size()) return false;
  engine_.update_memory();
  return deliver(std::move(handles_));
}

void OpenJob::broken_off(const std::exception_ptr&) noexcept {
  for (int32_t handle : handles_) engine_.segments_->release(handle);
  engine_.update_memory();
}

}  // namespace sala
