#include "native/scheduler.h"

#include <algorithm>

namespace sala {

namespace {

class Command : public Job {
 public:
  explicit Command(std::function<void()> run) : run_(std::move(run)) {}
  bool step() override {
    run_();
    return true;
  }
  void reject(std::exception_ptr) noexcept override {}

 private:
  std::function<void()> run_;
};

std::exception_ptr cancelled_error() { return std::make_exception_ptr(EngineError(ErrorCode::cancelled, "cancelled")); }

}  // namespace

Scheduler::Scheduler() : thread_([this] { loop(); }) {}

Scheduler::~Scheduler() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Scheduler::add(Priority priority, std::shared_ptr<Job> job) {
  {
    std::lock_guard lock(mutex_);
    const auto at = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& e) { return e.priority > priority; });
    entries_.insert(at, {priority, std::move(job)});
  }
  changed_.notify_all();
}

void Scheduler::run_soon(std::function<void()> command) { add(Priority::control, std::make_shared<Command>(std::move(command))); }

void Scheduler::loop() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return stopping_ || !entries_.empty(); });
    if (entries_.empty()) return;
    // A cancelled job is let go before anything is run, whatever its place in the line.
    auto at = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& e) { return stopping_ || e.job->cancelled(); });
    const bool cancel = at != entries_.end();
    if (!cancel) at = entries_.begin();
    std::shared_ptr<Job> job = at->job;
    lock.unlock();
    bool finished = true;
    if (cancel) {
      job->reject(cancelled_error());
    } else {
      try {
        finished = job->step();
      } catch (const std::bad_alloc&) {
        job->reject(std::make_exception_ptr(EngineError(ErrorCode::out_of_memory, "out of memory in the engine thread")));
      } catch (...) {
        job->reject(std::current_exception());
      }
    }
    lock.lock();
    if (!finished) continue;
    // Others were added meanwhile, but only this thread removes: `at` still stands.
    entries_.erase(at);
    // A job may hold many megabytes: nobody who adds one waits until they are freed.
    lock.unlock();
    job.reset();
    lock.lock();
  }
}

}  // namespace sala
