// The engine thread: runs jobs a step at a time, always the most urgent one, so that a completion waits for at most one step (a
// layer of a prefill, a decoded token) of anything else. Order among equals: first come, first served. It is two threads that take
// turns, a step at a time, never both: one that has given up priority to the user's programs, for reading in the background.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <thread>

#include "kernels/error.h"

namespace sala {

// Design section 4, most urgent first. `control` is for short commands that never wait behind a prefill.
enum class Priority { control, completion, decode, prefill, edit, ingest };

class Job {
 public:
  virtual ~Job() = default;
  // Runs one step; true when the job is finished and has delivered its result. What it throws goes to reject().
  virtual bool step() = 0;
  // Delivers a failure instead of a result. Called once, and only if step() never returned true.
  virtual void reject(std::exception_ptr error) noexcept = 0;

  // From any thread; takes effect before the next step of whatever job, as EngineError(cancelled).
  void cancel() { cancelled_ = true; }
  bool cancelled() const { return cancelled_; }

 private:
  std::atomic<bool> cancelled_{false};
};

class Scheduler {
 public:
  using Clock = std::chrono::steady_clock;

  // lower_thread: how the thread for the background begins. tidy: called by that thread, beside jobs of the other one, once in
  // tidy_interval if jobs have run since the last time.
  explicit Scheduler(std::function<void()> lower_thread, std::function<void()> tidy = [] {}, Clock::duration tidy_interval = std::chrono::minutes(1));
  ~Scheduler();  // all jobs that are not finished fail with `cancelled`

  void add(Priority priority, std::shared_ptr<Job> job);
  // A job of one step, ahead of all others.
  void run_soon(std::function<void()> command);
  // Whether jobs of priority `ingest` run on the lowered thread, from the next step on. At first they do not.
  void lower_ingest(bool on);

 private:
  struct Entry {
    Priority priority;
    std::shared_ptr<Job> job;
  };
  void loop(bool lowered);
  void tidy(std::unique_lock<std::mutex>& lock);
  bool next_is_lowered() const { return lower_ingest_ && entries_.front().priority == Priority::ingest; }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::list<Entry> entries_;  // most urgent first, in order of arrival among equals
  bool lower_ingest_ = false;
  bool running_ = false;      // one of the threads is within a step
  bool stopping_ = false;
  bool untidy_ = false;       // jobs have run since tidy_ was called
  const std::function<void()> tidy_;
  const Clock::duration tidy_interval_;
  Clock::time_point next_tidy_ = Clock::now() + tidy_interval_;
  std::thread thread_, lowered_thread_;  // last members: start when all else is there
};

}  // namespace sala
