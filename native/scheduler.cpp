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

Scheduler::Scheduler(std::function<void()> lower_thread, std::function<void()> tidy, Clock::duration tidy_interval)
    : tidy_(std::move(tidy)), tidy_interval_(tidy_interval), thread_([this] { loop(false); }), lowered_thread_([this, lower_thread = std::move(lower_thread)] {
        lower_thread();
        loop(true);
      }) {}

Scheduler::~Scheduler() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
  lowered_thread_.join();
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

void Scheduler::lower_ingest(bool on) {
  {
    std::lock_guard lock(mutex_);
    lower_ingest_ = on;
  }
  changed_.notify_all();
}

void Scheduler::loop(bool lowered) {
  std::unique_lock lock(mutex_);
  for (;;) {
    // A cancelled job is let go before anything is run, whatever its place in the line, by whichever thread is awake: nobody is
    // woken by the cancelling itself.
    auto at = entries_.end();
    const auto wanted = [&] {
      if (running_) return false;
      if (entries_.empty()) return stopping_;
      at = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& e) { return stopping_ || e.job->cancelled(); });
      return at != entries_.end() || next_is_lowered() == lowered;
    };
    if (!lowered) changed_.wait(lock, wanted);
    else if (!changed_.wait_until(lock, next_tidy_, wanted)) {
      tidy(lock);
      continue;
    }
    if (entries_.empty()) return;
    const bool cancel = at != entries_.end();
    if (!cancel) at = entries_.begin();
    std::shared_ptr<Job> job = at->job;
    running_ = true;
    untidy_ = true;
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
    // Others were added meanwhile, but only who runs removes: `at` still stands.
    if (finished) {
      entries_.erase(at);
      // A job may hold many megabytes: nobody who adds one waits until they are freed.
      lock.unlock();
      job.reset();
      lock.lock();
    }
    running_ = false;
    if (entries_.empty() ? stopping_ : next_is_lowered() != lowered) changed_.notify_all();
  }
}

void Scheduler::tidy(std::unique_lock<std::mutex>& lock) {
  next_tidy_ = Clock::now() + tidy_interval_;
  if (!untidy_) return;
  untidy_ = false;
  lock.unlock();
  tidy_();
  lock.lock();
}

}  // namespace sala
