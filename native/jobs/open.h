// Looks segments up in memory and in the store, some a step: reading keys are read and checked, nothing is run.
#pragma once

#include "native/jobs/job.h"

namespace sala {

class OpenJob : public ResultJob<std::vector<int32_t>> {
 public:
  OpenJob(Engine& engine, std::vector<SegmentKey> keys, Completion<std::vector<int32_t>> done);
  bool step() override;

 private:
  void broken_off(const std::exception_ptr& error) noexcept override;

  Engine& engine_;
  std::vector<SegmentKey> keys_;
  size_t next_ = 0;
  std::vector<int32_t> handles_;
};

}  // namespace sala
