// Tries again to add to the store what it refused when it was encoded, one segment a step: there may be room now.
#pragma once

#include "native/jobs/job.h"

namespace sala {

class KeepJob : public ResultJob<KeepResult> {
 public:
  KeepJob(Engine& engine, Completion<KeepResult> done) : ResultJob(std::move(done)), engine_(engine) {}
  bool step() override;

 private:
  Engine& engine_;
};

}  // namespace sala
