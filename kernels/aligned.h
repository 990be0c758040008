// A buffer on a 64-byte border, zeroed unless it is asked not to be, that throws EngineError(out_of_memory) instead of std::bad_alloc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <type_traits>

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
    void operator()(T* p) const { ::operator delete(p, std::align_val_t{64}); }
  };
  std::unique_ptr<T, Free> data_;
  size_t size_ = 0;
};

}  // namespace sala
