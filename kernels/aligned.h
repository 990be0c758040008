// A buffer on a 64-byte border, zeroed unless it is asked not to be, that throws EngineError(out_of_memory) instead of std::bad_alloc;
// and an arena for buffers that live together.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

#include "kernels/error.h"

namespace sala {

template <class T>
class Aligned {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  Aligned() = default;
  explicit Aligned(size_t n) : Aligned(uninitialized(n)) {
    if (n) std::memset(static_cast<void*>(data_.get()), 0, n * sizeof(T));
  }
  // For a buffer that is written in full before it is read.
  static Aligned uninitialized(size_t n) {
    Aligned buffer;
    if (n == 0) return buffer;
    if (n > SIZE_MAX / sizeof(T) - 64) fail(ErrorCode::out_of_memory, "expected a buffer size, found ", n, " elements");
    buffer.data_.reset(static_cast<T*>(::operator new(n * sizeof(T), std::align_val_t{64}, std::nothrow)));
    if (!buffer.data_) fail(ErrorCode::out_of_memory, "could not allocate ", n * sizeof(T), " bytes");
    buffer.size_ = n;
    return buffer;
  }
  // n elements at `data`, a 64-byte border, in memory that `owner` keeps.
  Aligned(std::shared_ptr<const void> owner, T* data, size_t n) : data_(data, Free{std::move(owner)}), size_(n) {}

  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  T& operator[](size_t i) { return data_.get()[i]; }
  const T& operator[](size_t i) const { return data_.get()[i]; }
  T* begin() { return data(); }
  T* end() { return data() + size_; }
  const T* begin() const { return data(); }
  const T* end() const { return data() + size_; }

  Aligned clone() const {
    Aligned copy(size_);
    if (size_) std::memcpy(static_cast<void*>(copy.data()), data(), size_ * sizeof(T));
    return copy;
  }

 private:
  struct Free {
    std::shared_ptr<const void> owner;  // null: of its own
    void operator()(T* p) const {
      if (!owner) ::operator delete(p, std::align_val_t{64});
    }
  };
  std::unique_ptr<T, Free> data_;
  size_t size_ = 0;
};

// Hands out one region of zeroed memory, from any thread; what it gave keeps all of it. Where it has no room left, buffers have
// memory of their own.
class Arena {
 public:
  Arena(std::shared_ptr<uint8_t> memory, size_t n_bytes) : memory_(std::move(memory)), n_bytes_(memory_ ? n_bytes : 0) {}

  // n elements, zeroed.
  template <class T>
  Aligned<T> take(size_t n) {
    if (n == 0 || n > n_bytes_ / sizeof(T)) return Aligned<T>(n);
    const size_t n_bytes = (n * sizeof(T) + kBorder - 1) / kBorder * kBorder, at = next_.fetch_add(n_bytes);
    if (at > n_bytes_ || n_bytes > n_bytes_ - at) return Aligned<T>(n);
    return Aligned<T>(memory_, reinterpret_cast<T*>(memory_.get() + at), n);
  }
  // What `n` buffers of so many bytes together need at most.
  static size_t padded(size_t n_bytes, size_t n) { return n_bytes + n * (kBorder - 1); }

 private:
  static constexpr size_t kBorder = 64;
  std::shared_ptr<uint8_t> memory_;
  size_t n_bytes_;
  std::atomic<size_t> next_{0};
};

}  // namespace sala
