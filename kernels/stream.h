// A queue to run operators on: for the CPU, a pool of threads that waits for the caller. Not a scheduler: one caller at a
// time. Calls in the background are served by threads of their own, since a thread that has given up priority cannot take it
// back on Linux. Threads spin for some 30 µs, then sleep, since pure spinning collapses on a shared machine and pure sleeping costs
// decode 5–10 % (docs/performance.md).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <type_traits>

namespace sala {

class Stream {
 public:
  // n_threads ≥ 1, the caller included. `lower`: how a thread that serves calls in the background begins, once there are such.
  explicit Stream(int n_threads, std::function<void()> lower = {});
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  int n_threads() const;

  // Calls of parallel_for so far: threads wait for each other at the end of each.
  int64_t n_barriers() const { return n_barriers_; }

  // The calls of this thread are in the background from now on.
  static void enter_background();

  // Uses at most n of the threads from now on (1 … n_threads): "one core while the user types".
  void limit_threads(int n);

  // Calls body(begin, end) on disjoint ranges that cover 0 … n, on all threads, and returns when all are done. Ranges are
  // multiples of `grain` but for the last. Results must not depend on how the range is split. An exception in a body is
  // rethrown here. Throws internal if called from inside a body, or by two callers at a time.
  template <class Body>
  void parallel_for(int n, int grain, Body&& body) {
    using Plain = std::remove_reference_t<Body>;
    run(n, grain, [](void* b, int begin, int end) { (*static_cast<Plain*>(b))(begin, end); },
        const_cast<void*>(static_cast<const void*>(&body)));
  }

  // Scratch memory of the calling pool thread, 64-byte aligned, contents undefined, valid until the next call of
  // scratch() on this thread. Grows and stays.
  static void* scratch(size_t bytes);

 private:
  void run(int n, int grain, void (*body)(void*, int, int), void* argument);
  struct Pool;
  std::unique_ptr<Pool> pool_;
  int64_t n_barriers_ = 0;
};

}  // namespace sala
