// Numbers and byte strings as they lie in the store's files: little-endian, lengths in front, nothing aligned. A reader trusts no
// length: what reaches behind the end is store_invalid.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>

#include "kernels/error.h"

namespace sala {

class ByteWriter {
 public:
  void u8(uint8_t value) { bytes_ += char(value); }
  void u32(uint32_t value) { number(value); }
  void u64(uint64_t value) { number(value); }
  void raw(const void* data, size_t n_bytes) { bytes_.append(static_cast<const char*>(data), n_bytes); }
  // Length in 32 bits, then the bytes.
  void string(std::string_view text) {
    u32(uint32_t(text.size()));
    raw(text.data(), text.size());
  }
  size_t size() const { return bytes_.size(); }
  const std::string& bytes() const { return bytes_; }
  std::string take() { return std::move(bytes_); }

 private:
  template <class T>
  void number(T value) {
    for (size_t i = 0; i < sizeof value; ++i) bytes_ += char(uint8_t(value >> 8 * i));
  }
  std::string bytes_;
};

class ByteReader {
 public:
  // `what` appears in messages.
  ByteReader(std::string_view bytes, const std::string& what) : bytes_(bytes), what_(what) {}

  uint8_t u8() { return uint8_t(take(1)[0]); }
  uint32_t u32() { return number<uint32_t>(); }
  uint64_t u64() { return number<uint64_t>(); }
  std::string_view take(size_t n_bytes) {
    if (n_bytes > bytes_.size() - at_) {
      fail(ErrorCode::store_invalid, what_, ": expected ", n_bytes, " bytes at byte ", at_, ", found ", bytes_.size() - at_);
    }
    at_ += n_bytes;
    return bytes_.substr(at_ - n_bytes, n_bytes);
  }
  std::string_view string() { return take(u32()); }
  size_t at() const { return at_; }
  bool at_end() const { return at_ == bytes_.size(); }

 private:
  template <class T>
  T number() {
    const std::string_view bytes = take(sizeof(T));
    T value = 0;
    for (size_t i = 0; i < sizeof(T); ++i) value |= T(uint8_t(bytes[i])) << 8 * i;
    return value;
  }
  std::string_view bytes_;
  std::string what_;
  size_t at_ = 0;
};

}  // namespace sala
