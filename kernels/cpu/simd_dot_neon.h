// The dot products of simd_int8.h with NEON: sdot (FEAT_DotProd), which takes one row of activations by lane, and smmla
// (FEAT_I8MM), which multiplies two rows of eight weights by two rows of eight activations, twice the products of an sdot.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/cpu/simd.h"

namespace sala::SALA_ISA {

// ---- sdot ----

// sums[t][v] += w[v] · the four bytes `Lane` of x[t].
template <int Tokens, int Lane>
inline void dot_step(const int8x16_t (&w)[4], const int8x8_t (&x)[Tokens], int32x4_t (&sum)[Tokens][4]) {
#pragma GCC unroll 4
  for (int t = 0; t < Tokens; ++t) {
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) sum[t][v] = vdotq_lane_s32(sum[t][v], w[v], x[t], Lane);
  }
}

template <int Tokens>
inline void load_sums(const int32_t* sums, int32x4_t (&sum)[Tokens][4]) {
#pragma GCC unroll 4
  for (int t = 0; t < Tokens; ++t) {
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) sum[t][v] = vld1q_s32(sums + 16 * t + 4 * v);
  }
}

template <int Tokens>
inline void store_sums(const int32x4_t (&sum)[Tokens][4], int32_t* sums) {
#pragma GCC unroll 4
  for (int t = 0; t < Tokens; ++t) {
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) vst1q_s32(sums + 16 * t + 4 * v, sum[t][v]);
  }
}

template <int Tokens>
inline void sdot_int8(const uint8_t* panel, const int8_t* rows, int64_t stride, int64_t n_columns, int32_t* sums) {
  int32x4_t sum[Tokens][4];
  load_sums<Tokens>(sums, sum);
  int8x16_t w[4];
  int8x8_t x[Tokens];
  const int8_t* bytes = reinterpret_cast<const int8_t*>(panel);
  for (; n_columns >= 8; n_columns -= 8, bytes += 128, rows += 8) {
#pragma GCC unroll 4
    for (int t = 0; t < Tokens; ++t) x[t] = vld1_s8(rows + t * stride);
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) w[v] = vld1q_s8(bytes + 16 * v);
    dot_step<Tokens, 0>(w, x, sum);
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) w[v] = vld1q_s8(bytes + 64 + 16 * v);
    dot_step<Tokens, 1>(w, x, sum);
  }
  if (n_columns > 0) {
#pragma GCC unroll 4
    for (int t = 0; t < Tokens; ++t) {
      int32_t four;
      std::memcpy(&four, rows + t * stride, 4);
      x[t] = vreinterpret_s8_s32(vdup_n_s32(four));
    }
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) w[v] = vld1q_s8(bytes + 16 * v);
    dot_step<Tokens, 0>(w, x, sum);
  }
  store_sums<Tokens>(sum, sums);
}

template <int Tokens>
inline void sdot_nibbles(const uint8_t* panel, const int8_t* rows, int64_t stride, int64_t n_columns, int32_t* sums) {
  int32x4_t sum[Tokens][4];
  load_sums<Tokens>(sums, sum);
  for (; n_columns > 0; n_columns -= 8, panel += 64, rows += 8) {
    int8x8_t x[Tokens];
#pragma GCC unroll 4
    for (int t = 0; t < Tokens; ++t) x[t] = vld1_s8(rows + t * stride);
    uint8x16_t pairs[4];
    int8x16_t w[4];
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) pairs[v] = vld1q_u8(panel + 16 * v);
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) w[v] = vreinterpretq_s8_u8(vandq_u8(pairs[v], vdupq_n_u8(15)));
    dot_step<Tokens, 0>(w, x, sum);
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) w[v] = vreinterpretq_s8_u8(vshrq_n_u8(pairs[v], 4));
    dot_step<Tokens, 1>(w, x, sum);
  }
  store_sums<Tokens>(sum, sums);
}

// ---- smmla ----
// A panel's four-column words of rows r and r + 1 from columns k and k + 4, side by side, are two rows of eight. Bytes unpacked from
// nibbles lie that way: 128 for each 8 columns, row pair i at 16 · i.

#if SALA_ISA_neon_i8mm

constexpr int kTokenTile = 6;  // 3 pairs: 24 sums, 3 activations, 1 weight of 32 registers
constexpr int kSmallTokenTile = 4;

constexpr int kRowPairs = 8;

// Sums of a pair of tokens and a pair of rows: [row 0 · token 0, row 0 · token 1, row 1 · token 0, row 1 · token 1].
template <int Pairs>
using PairSums = int32x4_t[Pairs][kRowPairs];

// The second token of the last pair is the first again where their number is odd; its sums are dropped.
template <int Tokens>
constexpr int second_of(int pair) {
  return 2 * pair + 1 < Tokens ? 2 * pair + 1 : 2 * pair;
}

template <int Tokens>
inline void clear_pairs(PairSums<(Tokens + 1) / 2>& sum) {
#pragma GCC unroll 3
  for (int p = 0; p < (Tokens + 1) / 2; ++p) {
#pragma GCC unroll 8
    for (int r = 0; r < kRowPairs; ++r) sum[p][r] = vdupq_n_s32(0);
  }
}

template <int Tokens>
inline void load_pairs(const int8_t* rows, int64_t stride, int8x16_t (&x)[(Tokens + 1) / 2]) {
#pragma GCC unroll 3
  for (int p = 0; p < (Tokens + 1) / 2; ++p) {
    x[p] = vcombine_s8(vld1_s8(rows + 2 * p * stride), vld1_s8(rows + second_of<Tokens>(p) * stride));
  }
}

template <int Tokens>
inline void mul_row_pair(int r, int8x16_t w, const int8x16_t (&x)[(Tokens + 1) / 2], PairSums<(Tokens + 1) / 2>& sum) {
#pragma GCC unroll 3
  for (int p = 0; p < (Tokens + 1) / 2; ++p) sum[p][r] = vmmlaq_s32(sum[p][r], w, x[p]);
}

// Adds the sums to [Tokens, 16].
template <int Tokens>
inline void add_pairs(const PairSums<(Tokens + 1) / 2>& sum, int32_t* sums) {
#pragma GCC unroll 3
  for (int p = 0; p < (Tokens + 1) / 2; ++p) {
#pragma GCC unroll 4
    for (int r = 0; r < kRowPairs; r += 2) {
      int32_t* first = sums + 32 * p + 2 * r;
      vst1q_s32(first, vaddq_s32(vld1q_s32(first), vuzp1q_s32(sum[p][r], sum[p][r + 1])));
      if (2 * p + 1 < Tokens) {
        vst1q_s32(first + 16, vaddq_s32(vld1q_s32(first + 16), vuzp2q_s32(sum[p][r], sum[p][r + 1])));
      }
    }
  }
}

// Rows 4v … 4v + 3 of columns k … k + 3 and k + 4 … k + 7 as two pairs of rows of eight columns.
inline int8x16_t first_pair(int8x16_t low, int8x16_t high) {
  return vreinterpretq_s8_s32(vzip1q_s32(vreinterpretq_s32_s8(low), vreinterpretq_s32_s8(high)));
}
inline int8x16_t second_pair(int8x16_t low, int8x16_t high) {
  return vreinterpretq_s8_s32(vzip2q_s32(vreinterpretq_s32_s8(low), vreinterpretq_s32_s8(high)));
}

template <int Tokens>
inline void dot_bytes(const uint8_t* panel, const int8_t* rows, int64_t stride, int64_t n_columns, int32_t* sums) {
  PairSums<(Tokens + 1) / 2> sum;
  clear_pairs<Tokens>(sum);
  for (; n_columns > 0; n_columns -= 8, panel += 128, rows += 8) {
    int8x16_t x[(Tokens + 1) / 2];
    load_pairs<Tokens>(rows, stride, x);
#pragma GCC unroll 8
    for (int r = 0; r < kRowPairs; ++r) {
      mul_row_pair<Tokens>(r, vreinterpretq_s8_u8(vld1q_u8(panel + 16 * r)), x, sum);
    }
  }
  add_pairs<Tokens>(sum, sums);
}

// One token would leave half of each smmla unused.
template <int Tokens>
inline void dot_nibbles(const uint8_t* panel, const int8_t* rows, int64_t stride, int64_t n_columns, int32_t* sums) {
  if constexpr (Tokens == 1) {
    sdot_nibbles<Tokens>(panel, rows, stride, n_columns, sums);
  } else {
    PairSums<(Tokens + 1) / 2> sum;
    clear_pairs<Tokens>(sum);
    for (; n_columns > 0; n_columns -= 8, panel += 64, rows += 8) {
      int8x16_t x[(Tokens + 1) / 2];
      load_pairs<Tokens>(rows, stride, x);
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) {
        const uint8x16_t pairs = vld1q_u8(panel + 16 * v);
        const int8x16_t low = vreinterpretq_s8_u8(vandq_u8(pairs, vdupq_n_u8(15)));
        const int8x16_t high = vreinterpretq_s8_u8(vshrq_n_u8(pairs, 4));
        mul_row_pair<Tokens>(2 * v, first_pair(low, high), x, sum);
        mul_row_pair<Tokens>(2 * v + 1, second_pair(low, high), x, sum);
      }
    }
    add_pairs<Tokens>(sum, sums);
  }
}

template <int Tokens>
inline void dot_int8(const uint8_t* panel, const int8_t* rows, int64_t stride, int64_t n_columns, int32_t* sums) {
  if constexpr (Tokens > 1) {
    PairSums<(Tokens + 1) / 2> sum;
    clear_pairs<Tokens>(sum);
    for (; n_columns >= 8; n_columns -= 8, panel += 128, rows += 8) {
      const int8_t* bytes = reinterpret_cast<const int8_t*>(panel);
      int8x16_t x[(Tokens + 1) / 2];
      load_pairs<Tokens>(rows, stride, x);
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) {
        const int8x16_t low = vld1q_s8(bytes + 16 * v), high = vld1q_s8(bytes + 64 + 16 * v);
        mul_row_pair<Tokens>(2 * v, first_pair(low, high), x, sum);
        mul_row_pair<Tokens>(2 * v + 1, second_pair(low, high), x, sum);
      }
    }
    add_pairs<Tokens>(sum, sums);
  }
  if (n_columns > 0) sdot_int8<Tokens>(panel, rows, stride, n_columns, sums);  // one token, or the last four columns
}

inline void unpack_nibbles(const uint8_t* nibbles, int n_columns, uint8_t* bytes) {
  int8_t* to = reinterpret_cast<int8_t*>(bytes);
  for (int k = 0; k < n_columns; k += 8, nibbles += 64, to += 128) {
    for (int v = 0; v < 4; ++v) {
      const uint8x16_t pairs = vld1q_u8(nibbles + 16 * v);
      const int8x16_t low = vreinterpretq_s8_u8(vandq_u8(pairs, vdupq_n_u8(15)));
      const int8x16_t high = vreinterpretq_s8_u8(vshrq_n_u8(pairs, 4));
      vst1q_s8(to + 32 * v, first_pair(low, high));
      vst1q_s8(to + 32 * v + 16, second_pair(low, high));
    }
  }
}

#else

constexpr int kTokenTile = 4;  // 16 sums, 4 weights, 4 activations
constexpr int kSmallTokenTile = 4;

template <int Tokens>
inline void dot_int8(const uint8_t* panel, const int8_t* rows, int64_t stride, int64_t n_columns, int32_t* sums) {
  sdot_int8<Tokens>(panel, rows, stride, n_columns, sums);
}

// 0 … 15 is the same signed and unsigned, and sdot widens at once.
template <int Tokens>
inline void dot_bytes(const uint8_t* panel, const int8_t* rows, int64_t stride, int64_t n_columns, int32_t* sums) {
  sdot_int8<Tokens>(panel, rows, stride, n_columns, sums);
}

template <int Tokens>
inline void dot_nibbles(const uint8_t* panel, const int8_t* rows, int64_t stride, int64_t n_columns, int32_t* sums) {
  sdot_nibbles<Tokens>(panel, rows, stride, n_columns, sums);
}

inline void unpack_nibbles(const uint8_t* nibbles, int n_columns, uint8_t* bytes) {
  for (int k = 0; k < n_columns; k += 8, nibbles += 64, bytes += 128) {
    for (int v = 0; v < 64; v += 16) {
      const uint8x16_t pairs = vld1q_u8(nibbles + v);
      vst1q_u8(bytes + v, vandq_u8(pairs, vdupq_n_u8(15)));
      vst1q_u8(bytes + v + 64, vshrq_n_u8(pairs, 4));
    }
  }
}

#endif

}  // namespace sala::SALA_ISA
