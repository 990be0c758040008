// The most private memory that this process may take, asked before it is taken. What is mapped from files does not count.
#pragma once

#include <atomic>
#include <cstdint>

#include "native/platform.h"

namespace sala {

class MemoryLimit {
 public:
  // 0: no limit.
  explicit MemoryLimit(uint64_t max_bytes) : max_bytes_(max_bytes) {}
  void set(uint64_t max_bytes) { max_bytes_ = max_bytes; }

  // Throws out_of_memory unless n_bytes more are allowed; `purpose` says what for. Some file reads: not for small buffers.
  void require(uint64_t n_bytes, const std::string& purpose) const {
    const uint64_t max_bytes = max_bytes_;
    if (max_bytes == 0) return;
    uint64_t in_use = process_memory().private_bytes;
    if (fits(n_bytes, in_use, max_bytes)) return;
    // What was freed may still be the process's.
    release_free_memory();
    in_use = process_memory().private_bytes;
    if (fits(n_bytes, in_use, max_bytes)) return;
    fail(ErrorCode::out_of_memory, purpose, ": expected at most ", max_bytes, " bytes of memory (the memory limit), found ", in_use,
         " in use and ", n_bytes, " more needed");
  }

 private:
  static bool fits(uint64_t n_bytes, uint64_t in_use, uint64_t max_bytes) { return in_use <= max_bytes && n_bytes <= max_bytes - in_use; }

  std::atomic<uint64_t> max_bytes_;
};

}  // namespace sala
