// Memory for the activations of a step, kept from step to step. A layer needs some 30 MB for 512 rows; taken from the system each
// time, their page faults would cost more than all norms and gates. What is in it is undefined. For the engine thread alone.
#pragma once

#include <cstring>
#include <vector>

#include "kernels/aligned.h"

namespace sala {

class Workspace {
 public:
  // Takes memory that is given back when the frame ends. Frames nest: only the innermost one takes.
  class Frame {
   public:
    explicit Frame(Workspace& workspace) : workspace_(workspace), outer_(workspace.innermost_), block_(workspace.block_), used_(workspace.used_) {
      workspace_.innermost_ = this;
    }
    ~Frame() {
      workspace_.innermost_ = outer_;
      workspace_.block_ = block_;
      workspace_.used_ = used_;
      if (!outer_) workspace_.join_blocks();
    }
    Frame(const Frame&) = delete;
    Frame& operator=(const Frame&) = delete;

    // n elements on a 64-byte border. Throws out_of_memory.
    template <class T>
    T* take(size_t n) {
      static_assert(std::is_trivially_copyable_v<T>);
      CHECK(workspace_.innermost_ == this);
      if (n > SIZE_MAX / sizeof(T) - 64) fail(ErrorCode::out_of_memory, "expected a buffer size, found ", n, " elements");
      return static_cast<T*>(workspace_.take(n * sizeof(T)));
    }

   private:
    Workspace& workspace_;
    Frame* outer_;
    size_t block_, used_;  // where it began
  };

  size_t bytes() const {
    size_t n = 0;
    for (const auto& block : blocks_) n += block.size();
    return n;
  }

 private:
  void* take(size_t n_bytes) {
    n_bytes = (n_bytes + 63) / 64 * 64;
    while (block_ < blocks_.size() && n_bytes > blocks_[block_].size() - used_) {
      ++block_;
      used_ = 0;
    }
    if (block_ == blocks_.size()) {
      blocks_.emplace_back(n_bytes > reserve_ ? n_bytes : reserve_);
      reserve_ = 0;
    }
    uint8_t* memory = blocks_[block_].data() + used_;
    used_ += n_bytes;
#ifdef __SANITIZE_ADDRESS__
    std::memset(memory, 0xFF, n_bytes);  // NaN: who reads what was not written does not get away with a 0
#endif
    return memory;
  }

  // What needed several blocks gets a single one the next time.
  void join_blocks() {
    if (blocks_.size() < 2) return;
    reserve_ = bytes();
    blocks_.clear();
  }

  std::vector<Aligned<uint8_t>> blocks_;
  size_t block_ = 0, used_ = 0;  // the block in use, and its bytes that are taken
  size_t reserve_ = 0;
  Frame* innermost_ = nullptr;
};

}  // namespace sala
