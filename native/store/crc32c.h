// CRC-32C (Castagnoli polynomial, RFC 3720 appendix B.4), for records of some kilobytes: one byte a step, from a table.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace sala {

namespace crc32c_detail {

constexpr std::array<uint32_t, 256> make_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0u);
    table[byte] = crc;
  }
  return table;
}

inline constexpr std::array<uint32_t, 256> kTable = make_table();

}  // namespace crc32c_detail

// `before`: the sum of the bytes in front of these, where they come in pieces.
inline uint32_t crc32c(const void* data, size_t n_bytes, uint32_t before = 0) {
  uint32_t crc = ~before;
  for (const auto* at = static_cast<const uint8_t*>(data); n_bytes > 0; --n_bytes, ++at) {
    crc = crc >> 8 ^ crc32c_detail::kTable[(crc ^ *at) & 0xff];
  }
  return ~crc;
}

}  // namespace sala
