// Exact integer products of 16-bit rows with panels of 8-bit ones: a query that is rounded less than an activation is, against many
// stored keys. As in simd_int8.h, the results are the same with all instructions.
//   panel   16 rows of 8 bit, 64 bytes for each 4 columns (kernels/matrix.h)
//   rows    row r at rows + r * n_columns, as store_wide_row left it; kWideMost at most, so that 512 columns fit a sum
//   sums    [Rows, 16], overwritten
// n_columns: a multiple of 4.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/cpu/simd_int8.h"

namespace sala::SALA_ISA {

constexpr int kWideMost = 255 * 127 + 127;  // 32512: two limbs of −127 … 127
constexpr int kWideColumns = 512;

#if SALA_AVX2

// Columns 0 and 2 of each four side by side, then 1 and 3, as the panel's bytes are widened.
inline void store_wide_row(const int16_t* x, int n_columns, int16_t* row) {
  for (int c = 0; c < n_columns; c += 4) {
    row[c] = x[c];
    row[c + 1] = x[c + 2];
    row[c + 2] = x[c + 1];
    row[c + 3] = x[c + 3];
  }
}

inline int32_t two_of(const int16_t* row) {
  int32_t two;
  std::memcpy(&two, row, 4);
  return two;
}

#if SALA_ISA_avx512_vnni

template <int Rows>
inline void dot_wide(const int8_t* panel, const int16_t* rows, int n_columns, int32_t* sums) {
  __m512i sum[Rows];
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r) sum[r] = _mm512_setzero_si512();
  for (int c = 0; c < n_columns; c += 4) {
    const __m512i keys = _mm512_loadu_si512(panel + 16 * c);
    const __m512i even = _mm512_srai_epi16(_mm512_slli_epi16(keys, 8), 8), odd = _mm512_srai_epi16(keys, 8);
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) {
      const int16_t* row = rows + r * n_columns + c;
      sum[r] = _mm512_dpwssd_epi32(sum[r], even, _mm512_set1_epi32(two_of(row)));
      sum[r] = _mm512_dpwssd_epi32(sum[r], odd, _mm512_set1_epi32(two_of(row + 2)));
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r) _mm512_storeu_si512(sums + 16 * r, sum[r]);
}

#else

inline __m256i add_products(__m256i sum, __m256i a, __m256i b) {
#if SALA_VNNI && !SALA_MODEL_DPBUSD
  return _mm256_dpwssd_avx_epi32(sum, a, b);
#else
  return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
#endif
}

template <int Rows>
inline void dot_wide(const int8_t* panel, const int16_t* rows, int n_columns, int32_t* sums) {
  for (int half = 0; half < 16; half += 8) {
    __m256i sum[Rows];
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) sum[r] = _mm256_setzero_si256();
    for (int c = 0; c < n_columns; c += 4) {
      const __m256i keys = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(panel + 16 * c + 4 * half));
      const __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(keys, 8), 8), odd = _mm256_srai_epi16(keys, 8);
#pragma GCC unroll 8
      for (int r = 0; r < Rows; ++r) {
        const int16_t* row = rows + r * n_columns + c;
        sum[r] = add_products(sum[r], even, _mm256_set1_epi32(two_of(row)));
        sum[r] = add_products(sum[r], odd, _mm256_set1_epi32(two_of(row + 2)));
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums + 16 * r + half), sum[r]);
  }
}

#endif

#elif SALA_NEON

// The product of bytes is by far the fastest: a row is two limbs of bytes, x = 255 · high + low.
inline void store_wide_row(const int16_t* x, int n_columns, int16_t* row) {
  int8_t* limbs = reinterpret_cast<int8_t*>(row);
  for (int c = 0; c < n_columns; ++c) {
    const int high = (x[c] + (x[c] < 0 ? -127 : 127)) / 255;
    limbs[c] = static_cast<int8_t>(high);
    limbs[n_columns + c] = static_cast<int8_t>(x[c] - 255 * high);
  }
}

template <int Rows>
inline void dot_wide(const int8_t* panel, const int16_t* rows, int n_columns, int32_t* sums) {
  if constexpr (Rows > kSmallTokenTile) {
    dot_wide<kSmallTokenTile>(panel, rows, n_columns, sums);
    dot_wide<Rows - kSmallTokenTile>(panel, rows + kSmallTokenTile * n_columns, n_columns, sums + 16 * kSmallTokenTile);
  } else {
    const uint8_t* bytes = reinterpret_cast<const uint8_t*>(panel);
    const int8_t* limbs = reinterpret_cast<const int8_t*>(rows);
    alignas(64) int32_t high[16 * Rows] = {}, low[16 * Rows] = {};
    dot_int8<Rows>(bytes, limbs, 2 * n_columns, n_columns, high);
    dot_int8<Rows>(bytes, limbs + n_columns, 2 * n_columns, n_columns, low);
    for (int i = 0; i < 16 * Rows; i += 4) vst1q_s32(sums + i, vmlaq_n_s32(vld1q_s32(low + i), vld1q_s32(high + i), 255));
  }
}

#else

inline void store_wide_row(const int16_t* x, int n_columns, int16_t* row) { std::memcpy(row, x, sizeof(int16_t) * n_columns); }

template <int Rows>
inline void dot_wide(const int8_t* panel, const int16_t* rows, int n_columns, int32_t* sums) {
  for (int i = 0; i < 16 * Rows; ++i) sums[i] = 0;
  for (int c = 0; c < n_columns; ++c) {
    for (int r = 0; r < Rows; ++r) {
      for (int i = 0; i < 16; ++i) sums[16 * r + i] += panel[c / 4 * 64 + 4 * i + c % 4] * rows[r * n_columns + c];
    }
  }
}

#endif

}  // namespace sala::SALA_ISA
