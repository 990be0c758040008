// Looks segments up in memory and in the store, some files a step: headers and reading keys are read and checked, nothing is run.
#pragma once

#include "native/jobs/job.h"

namespace sala {

class OpenJob : public ResultJob<OpenResult> {
 public:
  OpenJob(Engine& engine, std::vector<SegmentKey> keys, Completion<OpenResult> done);
  bool step() override;

 private:
  void broken_off(const std::exception_ptr& error) noexcept override;

  Engine& engine_;
  std::vector<SegmentKey> keys_;
  size_t next_ = 0;
  OpenResult result_;
};

}  // namespace sala
