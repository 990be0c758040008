// The dot products of simd_int8.h in plain C++.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/cpu/simd.h"

namespace sala::SALA_ISA {

constexpr int kTokenTile = 4;
constexpr int kSmallTokenTile = 4;

// sum[t][r] += the four products of row r's bytes w(r, 0 … 3) with x[t].
template <int Tokens, class Weight>
inline void dot_step(Weight w, const int8_t* rows, int64_t stride, int32_t* sums) {
  for (int t = 0; t < Tokens; ++t, rows += stride, sums += 16) {
    for (int r = 0; r < 16; ++r) {
      for (int b = 0; b < 4; ++b) sums[r] += w(4 * r + b) * rows[b];
    }
  }
}

template <int Tokens>
inline void dot_int8(const uint8_t* panel, const int8_t* rows, int64_t stride, int64_t n_columns, int32_t* sums) {
  for (int64_t k = 0; k < n_columns; k += 4, panel += 64) {
    dot_step<Tokens>([=](int i) { return static_cast<int8_t>(panel[i]); }, rows + k, stride, sums);
  }
}

template <int Tokens>
inline void dot_bytes(const uint8_t* panel, const int8_t* rows, int64_t stride, int64_t n_columns, int32_t* sums) {
  dot_int8<Tokens>(panel, rows, stride, n_columns, sums);
}

template <int Tokens>
inline void dot_nibbles(const uint8_t* panel, const int8_t* rows, int64_t stride, int64_t n_columns, int32_t* sums) {
  for (int64_t k = 0; k < n_columns; k += 8, panel += 64) {
    dot_step<Tokens>([=](int i) { return panel[i] & 15; }, rows + k, stride, sums);
    dot_step<Tokens>([=](int i) { return panel[i] >> 4; }, rows + k + 4, stride, sums);
  }
}

inline void unpack_nibbles(const uint8_t* nibbles, int n_columns, uint8_t* bytes) {
  for (int k = 0; k < n_columns; k += 8, nibbles += 64, bytes += 128) {
    for (int i = 0; i < 64; ++i) {
      bytes[i] = nibbles[i] & 15;
      bytes[i + 64] = nibbles[i] >> 4;
    }
  }
}

}  // namespace sala::SALA_ISA
