#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "kernels/error.h"
#include "kernels/stream.h"

using namespace sala;

// Every index once, ranges in multiples of the grain.
static void check_coverage(Stream& stream, int n, int grain) {
  CAPTURE(n);
  CAPTURE(grain);
  std::vector<std::atomic<int>> visits(n);
  std::atomic<bool> aligned{true};
  stream.parallel_for(n, grain, [&](int begin, int end) {
    if (begin % grain || (end % grain && end != n)) aligned = false;
    for (int i = begin; i < end; ++i) ++visits[i];
  });
  CHECK(aligned);
  bool once = true;
  for (auto& v : visits) once = once && v == 1;
  CHECK(once);
}

TEST_CASE("parallel_for covers the range once") {
  for (int n_threads : {1, 2, 3, 8}) {
    CAPTURE(n_threads);
    Stream stream(n_threads);
    CHECK(stream.n_threads() == n_threads);
    for (int n : {0, 1, 2, 63, 64, 65, 1000}) {
      for (int grain : {1, 7, 64, 5000}) check_coverage(stream, n, grain);
    }
  }
}

TEST_CASE("many tiny calls, some after the threads fell asleep") {
  Stream stream(4);
  std::atomic<int64_t> total{0};
  for (int call = 0; call < 20000; ++call) {
    stream.parallel_for(8, 1, [&](int begin, int end) { total += end - begin; });
    if (call % 2000 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  CHECK(total == 160000);
}

TEST_CASE("an exception in a body reaches the caller, and the pool goes on") {
  for (int n_threads : {1, 4}) {
    Stream stream(n_threads);
    for (int at : {0, 50, 99}) {
      const auto body = [&](int begin, int end) {
        if (begin <= at && at < end) throw std::runtime_error("expected");
      };
      CHECK_THROWS_WITH_AS(stream.parallel_for(100, 1, body), "expected", std::runtime_error);
      check_coverage(stream, 100, 1);
    }
  }
}

TEST_CASE("a body may not wait for the pool") {
  for (int n_threads : {1, 2}) {
    Stream stream(n_threads);
    const auto nested = [&](int, int) { stream.parallel_for(2, 1, [](int, int) {}); };
    CHECK_THROWS_AS(stream.parallel_for(2, 1, nested), EngineError);
    check_coverage(stream, 10, 1);
  }
}

// Threads that took part in a call whose pieces wait for so many of them, and a while for others that should not come.
static std::set<std::thread::id> participants(Stream& stream, size_t n_wanted) {
  std::mutex mutex;
  std::condition_variable came;
  std::set<std::thread::id> threads;
  stream.parallel_for(32, 1, [&](int, int) {
    {
      std::unique_lock lock(mutex);
      threads.insert(std::this_thread::get_id());
      came.notify_all();
      came.wait_for(lock, std::chrono::seconds(1), [&] { return threads.size() >= n_wanted; });
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  });
  return threads;
}

TEST_CASE("limit_threads takes effect at the next call, both ways") {
  Stream stream(3);
  CHECK(participants(stream, 3).size() == 3);
  stream.limit_threads(1);
  CHECK(participants(stream, 1).size() == 1);
  stream.limit_threads(2);
  CHECK(participants(stream, 2).size() == 2);
  stream.limit_threads(1000);
  CHECK(participants(stream, 3).size() == 3);
  CHECK_THROWS_AS(stream.limit_threads(0), EngineError);
}

TEST_CASE("calls in the background are served by threads that were lowered for it, and by no others") {
  std::mutex mutex;
  std::set<std::thread::id> lowered;
  Stream stream(3, [&] {
    std::lock_guard lock(mutex);
    lowered.insert(std::this_thread::get_id());
  });
  for (int round = 0; round < 3; ++round) {
    for (const std::thread::id id : participants(stream, 3)) CHECK(lowered.count(id) == 0);
    std::set<std::thread::id> found;
    std::thread::id caller;
    std::thread([&] {
      Stream::enter_background();
      caller = std::this_thread::get_id();
      found = participants(stream, 3);
      stream.limit_threads(2);
      CHECK(participants(stream, 2).size() == 2);
      stream.limit_threads(3);
    }).join();
    CHECK(found.size() == 3);
    for (const std::thread::id id : found) CHECK((id == caller || lowered.count(id) == 1));
    check_coverage(stream, 100, 1);
  }
  CHECK(lowered.size() == 2);
}

TEST_CASE("scratch memory is aligned, each thread's own, and grows") {
  Stream stream(2);
  std::atomic<bool> good{true};
  for (size_t bytes : {size_t{1}, size_t{100000}, size_t{10}, size_t{3000000}}) {
    stream.parallel_for(64, 1, [&](int begin, int end) {
      auto* memory = static_cast<uint8_t*>(Stream::scratch(bytes));
      if (reinterpret_cast<uintptr_t>(memory) % 64) good = false;
      std::memset(memory, begin, bytes);
      std::this_thread::yield();
      if (memory[0] != static_cast<uint8_t>(begin) || memory[bytes - 1] != static_cast<uint8_t>(begin)) good = false;
    });
  }
  CHECK(good);
}
