// What all jobs share: a result or an error is delivered exactly once.
#pragma once

#include <chrono>

#include "native/engine.h"

namespace sala {

// Tokens in one pass: long enough that weights are read once for many rows, short enough that a layer is a step of some 60 ms.
constexpr int kPassTokens = 512;

template <class Result>
class ResultJob : public Job {
 public:
  explicit ResultJob(Completion<Result> done) : done_(std::move(done)) {}
  void reject(std::exception_ptr error) noexcept override {
    broken_off(error);
    done_(error, Result{});
  }

 protected:
  // True, for the end of step().
  bool deliver(Result result) {
    done_(nullptr, std::move(result));
    return true;
  }
  // Clean-up when the job fails or is cancelled: what it has taken is given back.
  virtual void broken_off(const std::exception_ptr& error) noexcept {}

 private:
  Completion<Result> done_;
};

class Stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace sala
