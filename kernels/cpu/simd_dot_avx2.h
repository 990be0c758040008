// The dot products of simd_int8.h with AVX2, whose only product of bytes is one of unsigned by signed to 16 bit.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/cpu/simd.h"

namespace sala::SALA_ISA {

constexpr int kTokenTile = 6;       // of dot_bytes: 12 sums, 2 weights, 1 activation and 1 product are the 16 registers
constexpr int kSmallTokenTile = 4;  // of dot_nibbles and dot_int8, which need more registers for the weights

// ---- 4-bit weights ----
// vpmaddubsw multiplies unsigned weights by signed activations and adds pairs in 16 bit. Eight such sums stay below
// 8 · 2 · 15 · 127 = 30480 or 8 · 2 · 31 · 63 = 31248 < 2^15, so 32 columns are added in 16 bit and widened once: about two instructions for 32
// products. Assembly, since gcc 12 re-associates the additions of the intrinsics form into a tree and spills, which costs
// half of the speed.
//   ymm0 … ymm11   16-bit sums, two for each token
//   ymm12, ymm13   weights of 4 columns, rows 0–7 and 8–15
//   ymm14, ymm15   activations and products

// How far ahead of the weights memory is read; without a place in the caches in dot_nibbles and dot_int8 (simd_dot_vnni.h says why).
constexpr int kPrefetchBytes = 2048;

alignas(64) constexpr int16_t kOnes[16] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
alignas(64) constexpr uint8_t kNibbleMask[32] = {15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15,
                                                 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15};

// Address of row m.
#define SALA_ROW0 "(%[rows])"
#define SALA_ROW1 "(%[rows],%[stride])"
#define SALA_ROW2 "(%[rows],%[stride],2)"
#define SALA_ROW3 "(%[rows],%[stride3])"
#define SALA_ROW4 "(%[rows],%[stride],4)"
#define SALA_ROW5 "(%[rows],%[stride5])"

// Step i (4 columns) for token m: the first of a block sets its two sums, the others add to them.
#define SALA_FIRST(i, m, s0, s1)                        \
  "vpbroadcastd 4*" #i SALA_ROW##m ", %%ymm14\n"        \
  "vpmaddubsw %%ymm14, %%ymm12, %%ymm" #s0 "\n"         \
  "vpmaddubsw %%ymm14, %%ymm13, %%ymm" #s1 "\n"
#define SALA_NEXT(i, m, s0, s1)                         \
  "vpbroadcastd 4*" #i SALA_ROW##m ", %%ymm14\n"        \
  "vpmaddubsw %%ymm14, %%ymm12, %%ymm15\n"              \
  "vpmaddubsw %%ymm14, %%ymm13, %%ymm14\n"              \
  "vpaddw %%ymm15, %%ymm" #s0 ", %%ymm" #s0 "\n"        \
  "vpaddw %%ymm14, %%ymm" #s1 ", %%ymm" #s1 "\n"
// Widens the sums of token m (ymm`ones` holds ones) and adds them to memory.
#define SALA_WIDEN(ones, m, s0, s1)                             \
  "vpmaddwd %%ymm" #ones ", %%ymm" #s0 ", %%ymm" #s0 "\n"       \
  "vpmaddwd %%ymm" #ones ", %%ymm" #s1 ", %%ymm" #s1 "\n"       \
  "vpaddd 64*" #m "(%[sums]), %%ymm" #s0 ", %%ymm" #s0 "\n"     \
  "vpaddd 64*" #m "+32(%[sums]), %%ymm" #s1 ", %%ymm" #s1 "\n"  \
  "vmovdqa %%ymm" #s0 ", 64*" #m "(%[sums])\n"                  \
  "vmovdqa %%ymm" #s1 ", 64*" #m "+32(%[sums])\n"

#define SALA_TOKENS1(F, i) F(i, 0, 0, 1)
#define SALA_TOKENS2(F, i) SALA_TOKENS1(F, i) F(i, 1, 2, 3)
#define SALA_TOKENS3(F, i) SALA_TOKENS2(F, i) F(i, 2, 4, 5)
#define SALA_TOKENS4(F, i) SALA_TOKENS3(F, i) F(i, 3, 6, 7)
#define SALA_TOKENS5(F, i) SALA_TOKENS4(F, i) F(i, 4, 8, 9)
#define SALA_TOKENS6(F, i) SALA_TOKENS5(F, i) F(i, 5, 10, 11)

#define SALA_BYTES(i) "vmovdqa 64*" #i "(%[panel]), %%ymm12\n vmovdqa 64*" #i "+32(%[panel]), %%ymm13\n"
// The weights of steps 2i and 2i + 1 out of nibbles; at most four tokens leave ymm8 … ymm10 free.
#define SALA_LOW_NIBBLES(i)                      \
  "prefetchnta 64*" #i "+%c[ahead](%[panel])\n"  \
  "vmovdqa 64*" #i "(%[panel]), %%ymm8\n"        \
  "vmovdqa 64*" #i "+32(%[panel]), %%ymm9\n"     \
  "vpand %%ymm10, %%ymm8, %%ymm12\n"             \
  "vpand %%ymm10, %%ymm9, %%ymm13\n"
#define SALA_HIGH_NIBBLES                        \
  "vpsrlw $4, %%ymm8, %%ymm12\n"                 \
  "vpsrlw $4, %%ymm9, %%ymm13\n"                 \
  "vpand %%ymm10, %%ymm12, %%ymm12\n"            \
  "vpand %%ymm10, %%ymm13, %%ymm13\n"

#define SALA_BYTES_8(tokens) SALA_BYTES(0) tokens(SALA_FIRST, 0) SALA_BYTES(1) tokens(SALA_NEXT, 1)
#define SALA_BYTES_32(tokens)                                                                              \
  SALA_BYTES_8(tokens)                                                                                     \
  SALA_BYTES(2) tokens(SALA_NEXT, 2) SALA_BYTES(3) tokens(SALA_NEXT, 3) SALA_BYTES(4) tokens(SALA_NEXT, 4) \
  SALA_BYTES(5) tokens(SALA_NEXT, 5) SALA_BYTES(6) tokens(SALA_NEXT, 6) SALA_BYTES(7) tokens(SALA_NEXT, 7)
#define SALA_BYTES_END(tokens) "vmovdqa %[ones], %%ymm12\n" tokens(SALA_WIDEN, 12)

#define SALA_NIBBLES_BEGIN "vmovdqa %[mask], %%ymm10\n vmovdqa %[ones], %%ymm11\n"
#define SALA_NIBBLES_8(tokens) SALA_LOW_NIBBLES(0) tokens(SALA_FIRST, 0) SALA_HIGH_NIBBLES tokens(SALA_NEXT, 1)
#define SALA_NIBBLES_32(tokens)                                                    \
  SALA_NIBBLES_8(tokens)                                                           \
  SALA_LOW_NIBBLES(1) tokens(SALA_NEXT, 2) SALA_HIGH_NIBBLES tokens(SALA_NEXT, 3)  \
  SALA_LOW_NIBBLES(2) tokens(SALA_NEXT, 4) SALA_HIGH_NIBBLES tokens(SALA_NEXT, 5)  \
  SALA_LOW_NIBBLES(3) tokens(SALA_NEXT, 6) SALA_HIGH_NIBBLES tokens(SALA_NEXT, 7)
#define SALA_NIBBLES_END(tokens) tokens(SALA_WIDEN, 11)

// n_blocks > 0 blocks of `columns` columns, `bytes` bytes of the panel each.
#define SALA_BLOCKS(begin, block, end, columns, bytes)                                                               \
  asm volatile(begin                                                                                                 \
               "1:\n" block end                                                                                      \
               "add $" #bytes ", %[panel]\n"                                                                         \
               "add $" #columns ", %[rows]\n"                                                                        \
               "dec %[n_blocks]\n"                                                                                   \
               "jnz 1b\n"                                                                                            \
               : [panel] "+r"(panel), [rows] "+r"(rows), [n_blocks] "+r"(n_blocks)                                   \
               : [stride] "r"(stride), [stride3] "r"(3 * stride), [stride5] "r"(5 * stride), [sums] "r"(sums),       \
                 [ones] "m"(kOnes), [mask] "m"(kNibbleMask), [ahead] "i"(kPrefetchBytes)                             \
               : "cc", "memory", "ymm0", "ymm1", "ymm2", "ymm3", "ymm4", "ymm5", "ymm6", "ymm7", "ymm8", "ymm9",     \
                 "ymm10", "ymm11", "ymm12", "ymm13", "ymm14", "ymm15")
#define SALA_DOT_BYTES(tokens)                                                                                       \
  n_blocks = n_columns >> 5;                                                                                         \
  if (n_blocks) SALA_BLOCKS("", SALA_BYTES_32(tokens), SALA_BYTES_END(tokens), 32, 512);                             \
  n_blocks = (n_columns & 31) >> 3;                                                                                  \
  if (n_blocks) SALA_BLOCKS("", SALA_BYTES_8(tokens), SALA_BYTES_END(tokens), 8, 128)
#define SALA_DOT_NIBBLES(tokens)                                                                                     \
  n_blocks = n_columns >> 5;                                                                                         \
  if (n_blocks) SALA_BLOCKS(SALA_NIBBLES_BEGIN, SALA_NIBBLES_32(tokens), SALA_NIBBLES_END(tokens), 32, 256);         \
  n_blocks = (n_columns & 31) >> 3;                                                                                  \
  if (n_blocks) SALA_BLOCKS(SALA_NIBBLES_BEGIN, SALA_NIBBLES_8(tokens), SALA_NIBBLES_END(tokens), 8, 64)

// sums: on a 32-byte border, like the panel.
template <int Tokens>
inline void dot_bytes(const uint8_t* panel, const int8_t* rows, int64_t stride, int64_t n_columns, int32_t* sums) {
  static_assert(Tokens >= 1 && Tokens <= kTokenTile);
  int64_t n_blocks;
  if constexpr (Tokens == 1) { SALA_DOT_BYTES(SALA_TOKENS1); }
  if constexpr (Tokens == 2) { SALA_DOT_BYTES(SALA_TOKENS2); }
  if constexpr (Tokens == 3) { SALA_DOT_BYTES(SALA_TOKENS3); }
  if constexpr (Tokens == 4) { SALA_DOT_BYTES(SALA_TOKENS4); }
  if constexpr (Tokens == 5) { SALA_DOT_BYTES(SALA_TOKENS5); }
  if constexpr (Tokens == 6) { SALA_DOT_BYTES(SALA_TOKENS6); }
}

template <int Tokens>
inline void dot_nibbles(const uint8_t* panel, const int8_t* rows, int64_t stride, int64_t n_columns, int32_t* sums) {
  static_assert(Tokens >= 1 && Tokens <= kSmallTokenTile);
  int64_t n_blocks;
  if constexpr (Tokens == 1) { SALA_DOT_NIBBLES(SALA_TOKENS1); }
  if constexpr (Tokens == 2) { SALA_DOT_NIBBLES(SALA_TOKENS2); }
  if constexpr (Tokens == 3) { SALA_DOT_NIBBLES(SALA_TOKENS3); }
  if constexpr (Tokens == 4) { SALA_DOT_NIBBLES(SALA_TOKENS4); }
}

#undef SALA_ROW0
#undef SALA_ROW1
#undef SALA_ROW2
#undef SALA_ROW3
#undef SALA_ROW4
#undef SALA_ROW5
#undef SALA_FIRST
#undef SALA_NEXT
#undef SALA_WIDEN
#undef SALA_TOKENS1
#undef SALA_TOKENS2
#undef SALA_TOKENS3
#undef SALA_TOKENS4
#undef SALA_TOKENS5
#undef SALA_TOKENS6
#undef SALA_BYTES
#undef SALA_LOW_NIBBLES
#undef SALA_HIGH_NIBBLES
#undef SALA_BYTES_8
#undef SALA_BYTES_32
#undef SALA_BYTES_END
#undef SALA_NIBBLES_BEGIN
#undef SALA_NIBBLES_8
#undef SALA_NIBBLES_32
#undef SALA_NIBBLES_END
#undef SALA_BLOCKS
#undef SALA_DOT_BYTES
#undef SALA_DOT_NIBBLES

inline void unpack_nibbles(const uint8_t* nibbles, int n_columns, uint8_t* bytes) {
  const __m256i mask = _mm256_set1_epi8(15);
  for (int k = 0; k < n_columns; k += 8, nibbles += 64, bytes += 128) {
    __builtin_prefetch(nibbles + kPrefetchBytes);
    for (int half = 0; half < 64; half += 32) {
      const __m256i pairs = _mm256_load_si256(reinterpret_cast<const __m256i*>(nibbles + half));
      _mm256_store_si256(reinterpret_cast<__m256i*>(bytes + half), _mm256_and_si256(pairs, mask));
      _mm256_store_si256(reinterpret_cast<__m256i*>(bytes + half + 64),
                         _mm256_and_si256(_mm256_srli_epi16(pairs, 4), mask));
    }
  }
}

// ---- 8-bit weights ----
// |w| is unsigned and takes its sign to the activation. Two products reach 2 · 128 · 127 < 2^15 and must be widened at
// once.
template <int Tokens>
inline void dot_int8(const uint8_t* panel, const int8_t* rows, int64_t stride, int64_t n_columns, int32_t* sums) {
  static_assert(Tokens >= 1 && Tokens <= kSmallTokenTile);
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i sum[Tokens][2];
#pragma GCC unroll 4
  for (int t = 0; t < Tokens; ++t) {
    sum[t][0] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(sums + 16 * t));
    sum[t][1] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(sums + 16 * t + 8));
  }
  for (; n_columns > 0; n_columns -= 4, panel += 64, rows += 4) {
    __builtin_prefetch(panel + kPrefetchBytes, 0, 0);
    const __m256i w0 = _mm256_load_si256(reinterpret_cast<const __m256i*>(panel));
    const __m256i w1 = _mm256_load_si256(reinterpret_cast<const __m256i*>(panel + 32));
    const __m256i magnitude0 = _mm256_abs_epi8(w0), magnitude1 = _mm256_abs_epi8(w1);
#pragma GCC unroll 4
    for (int t = 0; t < Tokens; ++t) {
      int32_t four;
      std::memcpy(&four, rows + t * stride, 4);
      const __m256i x = _mm256_set1_epi32(four);
      const __m256i product0 = _mm256_maddubs_epi16(magnitude0, _mm256_sign_epi8(x, w0));
      const __m256i product1 = _mm256_maddubs_epi16(magnitude1, _mm256_sign_epi8(x, w1));
      sum[t][0] = _mm256_add_epi32(sum[t][0], _mm256_madd_epi16(product0, ones));
      sum[t][1] = _mm256_add_epi32(sum[t][1], _mm256_madd_epi16(product1, ones));
    }
  }
#pragma GCC unroll 4
  for (int t = 0; t < Tokens; ++t) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums + 16 * t), sum[t][0]);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums + 16 * t + 8), sum[t][1]);
  }
}

}  // namespace sala::SALA_ISA
