// When the engine's threads run what.
#include <doctest/doctest.h>

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "native/scheduler.h"

using namespace sala;

namespace {

// Counts, and can be waited for.
class Counter {
 public:
  void add() {
    std::lock_guard lock(mutex_);
    ++n_;
    changed_.notify_all();
  }
  bool reaches(int n) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(20), [&] { return n_ >= n; });
  }
  int n() {
    std::lock_guard lock(mutex_);
    return n_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int n_ = 0;
};

}  // namespace

TEST_CASE("scheduler: tidied after jobs, and not again before another one") {
  Counter jobs, tidied;
  Scheduler scheduler([] {}, [&] { tidied.add(); }, std::chrono::milliseconds(5));
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  CHECK(tidied.n() == 0);
  for (int i = 1; i <= 3; ++i) {
    scheduler.run_soon([&] { jobs.add(); });
    REQUIRE(jobs.reaches(i));
    REQUIRE(tidied.reaches(i));
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    CHECK(tidied.n() == i);
  }
}

TEST_CASE("scheduler: what is asked while it is tidied is run beside it") {
  Counter jobs, tidied, let_go;
  {
    Scheduler scheduler([] {}, [&] { tidied.add(); let_go.reaches(1); }, std::chrono::milliseconds(1));
    scheduler.run_soon([&] { jobs.add(); });
    REQUIRE(tidied.reaches(1));
    scheduler.run_soon([&] { jobs.add(); });
    CHECK(jobs.reaches(2));
    let_go.add();
  }
}
