// The thread pool behind Stream. A job is published by one store to `gate`; threads that come in time take pieces of
// its range, a thread that wakes too late finds the gate shut and is not waited for. So a call costs no more than its
// slowest piece, also when the machine is shared and a thread is not scheduled. Pieces get smaller towards the end (factoring,
// Hummel, Schonberg & Flynn 1992): long ones are read from memory without a break, short ones let threads end together.
#include "kernels/stream.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "kernels/aligned.h"

namespace sala {

namespace {

constexpr auto kSpinTime = std::chrono::microseconds(30);
// A piece is this part of a thread's share of what is left, so that a thread of half the speed does not end last …
constexpr int kPartOfShare = 2;
// … but no smaller than this part of its share of all: enough to be worth the exchange.
constexpr int kSmallestPart = 64;
// The gate: bit 0 … 15 threads inside, bit 16 open, above it the number of the job.
constexpr uint64_t kInsideMask = 0xFFFF;
constexpr uint64_t kOpen = uint64_t{1} << 16;
constexpr int kJobShift = 17;

thread_local bool inside_body = false;
thread_local bool calls_in_background = false;

void pause_cpu() {
#if defined(__x86_64__) || defined(_M_X64)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// True as soon as `ready` is, false after the spin time.
template <class Ready>
bool spin_until(Ready ready) {
  if (ready()) return true;
  const auto end = std::chrono::steady_clock::now() + kSpinTime;
  do {
    for (int i = 0; i < 32; ++i) {
      if (ready()) return true;
      pause_cpu();
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

}  // namespace

struct Stream::Pool {
  std::vector<std::thread> threads;             // serve the foreground
  std::vector<std::thread> background_threads;  // as many, from the first call in the background on
  std::function<void()> lower;
  std::atomic<int> limit;
  std::atomic<bool> in_background{false};       // which of the two sets serves

  // The job. Written while no thread is inside, read by those inside.
  void (*body)(void*, int, int) = nullptr;
  void* argument = nullptr;
  int n = 0;
  int smallest = 0;  // piece
  int parts = 0;     // of what is left, of which a piece is one
  std::atomic<int> next{0};
  std::exception_ptr error;      // under mutex

  std::atomic<uint64_t> gate{0};
  std::atomic<bool> stopping{false};
  std::atomic<bool> busy{false};

  // A sleeper announces itself before it looks at the gate for the last time, and whoever changes the gate looks for
  // sleepers afterwards; with sequentially consistent order one of the two sees the other.
  std::mutex mutex;
  std::condition_variable job_published, thread_left, limit_raised;
  std::atomic<int> sleepers{0};
  std::atomic<bool> caller_sleeps{false};

  bool job_waits(uint64_t last_job) const {
    const uint64_t g = gate.load();
    return (g & kOpen) && (g >> kJobShift) != last_job;
  }

  // Enters the open job and returns its number, or returns last_job if there is none to enter.
  uint64_t enter(uint64_t last_job) {
    uint64_t g = gate.load();
    while ((g & kOpen) && (g >> kJobShift) != last_job) {
      if (gate.compare_exchange_weak(g, g + 1)) return g >> kJobShift;
    }
    return last_job;
  }

  void leave() {
    gate.fetch_sub(1);
    if (caller_sleeps.load()) {
      std::lock_guard lock(mutex);
      thread_left.notify_one();
    }
  }

  // Takes the next piece, or returns false.
  bool take_piece(int& begin, int& end) {
    begin = next.load();
    do {
      if (begin >= n) return false;
      const int left = n - begin, piece = std::max(left / parts / smallest * smallest, smallest);
      end = begin + std::min(piece, left);
    } while (!next.compare_exchange_weak(begin, end));
    return true;
  }

  void take_pieces() {
    inside_body = true;
    try {
      for (int begin, end; take_piece(begin, end);) body(argument, begin, end);
    } catch (...) {
      next.store(n);  // the others need not go on
      std::lock_guard lock(mutex);
      if (!error) error = std::current_exception();
    }
    inside_body = false;
  }

  // Makes the set of threads; fewer where the system refuses more: results do not depend on their number.
  void start(std::vector<std::thread>& set, int n, bool background) {
    try {
      while (static_cast<int>(set.size()) < n) {
        const int index = static_cast<int>(set.size()) + 1;
        set.emplace_back([this, index, background] { work(index, background); });
      }
    } catch (const std::system_error&) {
    }
  }

  // Between two calls. Those of the other set move to the other wait.
  void serve(bool background) {
    if (background && background_threads.empty()) start(background_threads, static_cast<int>(threads.size()), true);
    std::lock_guard lock(mutex);
    in_background = background;
    limit_raised.notify_all();
    job_published.notify_all();
  }

  void work(int index, bool background) {
    if (background && lower) lower();
    const auto serves = [&] { return index < limit.load() && background == in_background.load(); };
    uint64_t last_job = 0;
    while (!stopping.load()) {
      if (!serves()) {
        std::unique_lock lock(mutex);
        limit_raised.wait(lock, [&] { return serves() || stopping.load(); });
        continue;
      }
      const uint64_t job = enter(last_job);
      if (job != last_job) {
        last_job = job;
        take_pieces();
        leave();
        continue;
      }
      const auto wanted = [&] { return job_waits(last_job) || stopping.load() || !serves(); };
      if (spin_until(wanted)) continue;
      std::unique_lock lock(mutex);
      ++sleepers;
      job_published.wait(lock, wanted);
      --sleepers;
    }
  }
};

Stream::Stream(int n_threads, std::function<void()> lower) : pool_(std::make_unique<Pool>()) {
  CHECK(n_threads >= 1 && n_threads < static_cast<int>(kInsideMask));
  pool_->lower = std::move(lower);
  pool_->limit = n_threads;
  pool_->start(pool_->threads, n_threads - 1, false);
  pool_->limit = this->n_threads();
}

Stream::~Stream() {
  {
    std::lock_guard lock(pool_->mutex);
    pool_->stopping = true;
    pool_->job_published.notify_all();
    pool_->limit_raised.notify_all();
  }
  for (auto* set : {&pool_->threads, &pool_->background_threads}) {
    for (std::thread& thread : *set) thread.join();
  }
}

void Stream::enter_background() { calls_in_background = true; }

int Stream::n_threads() const { return static_cast<int>(pool_->threads.size()) + 1; }

void Stream::limit_threads(int n) {
  CHECK(n >= 1);
  std::lock_guard lock(pool_->mutex);
  pool_->limit = n < n_threads() ? n : n_threads();
  pool_->limit_raised.notify_all();
  pool_->job_published.notify_all();  // those beyond the limit move to the other wait
}

void Stream::run(int n, int grain, void (*body)(void*, int, int), void* argument) {
  CHECK(n >= 0 && grain >= 1);
  CHECK(!inside_body);  // a body that waits for the pool would wait for itself
  if (n == 0) return;
  Pool& pool = *pool_;
  CHECK(!pool.busy.exchange(true));  // one caller at a time
  struct Release {
    Pool& pool;
    ~Release() {
      inside_body = false;
      pool.busy = false;
    }
  } release{pool};
  ++n_barriers_;

  const int limit = pool.limit.load();
  if (limit == 1 || n <= grain) {
    inside_body = true;
    body(argument, 0, n);
    return;
  }

  const int64_t n_grains = (int64_t{n} + grain - 1) / grain;
  const int64_t most_pieces = int64_t{limit} * kSmallestPart;
  if (pool.in_background.load() != calls_in_background) pool.serve(calls_in_background);
  pool.body = body;
  pool.argument = argument;
  pool.n = n;
  pool.smallest = static_cast<int>(std::min<int64_t>((n_grains + most_pieces - 1) / most_pieces * grain, n));
  pool.parts = limit * kPartOfShare;
  pool.next = 0;
  pool.error = nullptr;
  const uint64_t job = (pool.gate.load() >> kJobShift) + 1;
  pool.gate.store((job << kJobShift) | kOpen);
  if (pool.sleepers.load() > 0) {
    std::lock_guard lock(pool.mutex);
    pool.job_published.notify_all();
  }

  pool.take_pieces();

  pool.gate.fetch_and(~kOpen);
  const auto all_left = [&] { return (pool.gate.load() & kInsideMask) == 0; };
  if (!spin_until(all_left)) {
    std::unique_lock lock(pool.mutex);
    pool.caller_sleeps = true;
    pool.thread_left.wait(lock, all_left);
    pool.caller_sleeps = false;
  }
  if (pool.error) std::rethrow_exception(std::exchange(pool.error, nullptr));
}

void* Stream::scratch(size_t bytes) {
  thread_local Aligned<uint8_t> memory;
  if (memory.size() < bytes) {
    memory = {};  // the old memory goes before the new comes
    memory = Aligned<uint8_t>(bytes);
  }
  return memory.data();
}

}  // namespace sala
