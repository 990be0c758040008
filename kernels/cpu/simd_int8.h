// Exact integer work under the matrix products: dot products of weight panels with 8-bit rows, unpacking of nibbles,
// and the 8-bit rounding of a row. One section for each instruction set, all with the same functions and the same
// results; a further set (VNNI, i8mm) is a further section.
//
// The dot products multiply one panel of 16 weight rows by `Tokens` activation rows and add to sums [Tokens, 16]:
//   panel   bytes, 64 for each 4 columns as in an int8 panel; or nibbles, 64 for each 8 columns (kernels/matrix.h)
//   rows    row t at rows + t * stride; only n_columns bytes of it are read; −127 … 127, never −128
//   dot_bytes and dot_nibbles   unsigned weights 0 … 15, n_columns a multiple of 8
//   dot_int8                    signed weights −128 … 127, n_columns a multiple of 4
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/cpu/simd.h"

namespace sala::SALA_ISA {

#if SALA_ISA_avx2

constexpr int kTokenTile = 6;       // of dot_bytes: 12 sums, 2 weights, 1 activation and 1 product are the 16 registers
constexpr int kSmallTokenTile = 4;  // of dot_nibbles and dot_int8, which need more registers for the weights

// ---- 4-bit weights ----
// vpmaddubsw multiplies unsigned weights by signed activations and adds pairs in 16 bit. Eight such sums stay below
// 8 · 2 · 15 · 127 = 30480 < 2^15, so 32 columns are added in 16 bit and widened once: about two instructions for 32
// products. Assembly, since gcc 12 re-associates the additions of the intrinsics form into a tree and spills, which costs
// half of the speed.
//   ymm0 … ymm11   16-bit sums, two for each token
//   ymm12, ymm13   weights of 4 columns, rows 0–7 and 8–15
//   ymm14, ymm15   activations and products

constexpr int kPrefetchBytes = 2048;  // ahead of the weights in dot_nibbles, whose panels come from memory

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
  "prefetcht0 64*" #i "+%c[ahead](%[panel])\n"   \
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
    __builtin_prefetch(panel + kPrefetchBytes);
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

// ---- conversions ----

struct I32x8 {
  __m256i v;

  static I32x8 set1(int32_t x) { return {_mm256_set1_epi32(x)}; }
  static I32x8 load(const void* p) { return {_mm256_loadu_si256(static_cast<const __m256i*>(p))}; }
  static I32x8 load_u8(const uint8_t* p) {
    return {_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)))};
  }
  void store(int32_t* p) const { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
  F32x8 to_f32() const { return {_mm256_cvtepi32_ps(v)}; }
};

inline I32x8 operator-(I32x8 a, I32x8 b) { return {_mm256_sub_epi32(a.v, b.v)}; }
inline I32x8 operator*(I32x8 a, I32x8 b) { return {_mm256_mullo_epi32(a.v, b.v)}; }
// Bits First … First + Count − 1 of each lane, as an unsigned and as a signed number.
template <int First, int Count>
inline I32x8 field(I32x8 a) {
  return {_mm256_srli_epi32(_mm256_slli_epi32(a.v, 32 - First - Count), 32 - Count)};
}
template <int First, int Count>
inline I32x8 signed_field(I32x8 a) {
  return {_mm256_srai_epi32(_mm256_slli_epi32(a.v, 32 - First - Count), 32 - Count)};
}

inline F32x8 abs(F32x8 a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v)}; }

// Rounds −127 … 127 to the nearest, ties to even, stores eight bytes and returns their sum.
inline int32_t store_rounded(F32x8 a, int8_t* q) {
  const __m256i wide = _mm256_cvtps_epi32(a.v);
  const __m128i half = _mm_packs_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(q), _mm_packs_epi16(half, half));
  __m128i sum = _mm_madd_epi16(half, _mm_set1_epi16(1));
  sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4E));
  sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xB1));
  return _mm_cvtsi128_si32(sum);
}

#elif SALA_ISA_neon

constexpr int kTokenTile = 4;  // 16 sums, 4 weights, 4 activations
constexpr int kSmallTokenTile = 4;

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
inline void dot_int8(const uint8_t* panel, const int8_t* rows, int64_t stride, int64_t n_columns, int32_t* sums) {
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

// 0 … 15 is the same signed and unsigned, and sdot widens at once.
template <int Tokens>
inline void dot_bytes(const uint8_t* panel, const int8_t* rows, int64_t stride, int64_t n_columns, int32_t* sums) {
  dot_int8<Tokens>(panel, rows, stride, n_columns, sums);
}

template <int Tokens>
inline void dot_nibbles(const uint8_t* panel, const int8_t* rows, int64_t stride, int64_t n_columns, int32_t* sums) {
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

inline void unpack_nibbles(const uint8_t* nibbles, int n_columns, uint8_t* bytes) {
  for (int k = 0; k < n_columns; k += 8, nibbles += 64, bytes += 128) {
    for (int v = 0; v < 64; v += 16) {
      const uint8x16_t pairs = vld1q_u8(nibbles + v);
      vst1q_u8(bytes + v, vandq_u8(pairs, vdupq_n_u8(15)));
      vst1q_u8(bytes + v + 64, vshrq_n_u8(pairs, 4));
    }
  }
}

struct I32x8 {
  int32x4_t lo, hi;

  static I32x8 set1(int32_t x) { return {vdupq_n_s32(x), vdupq_n_s32(x)}; }
  static I32x8 load(const void* p) {
    return {vreinterpretq_s32_u8(vld1q_u8(static_cast<const uint8_t*>(p))),
            vreinterpretq_s32_u8(vld1q_u8(static_cast<const uint8_t*>(p) + 16))};
  }
  static I32x8 load_u8(const uint8_t* p) {
    const uint16x8_t wide = vmovl_u8(vld1_u8(p));
    return {vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(wide))),
            vreinterpretq_s32_u32(vmovl_u16(vget_high_u16(wide)))};
  }
  void store(int32_t* p) const {
    vst1q_s32(p, lo);
    vst1q_s32(p + 4, hi);
  }
  F32x8 to_f32() const { return {vcvtq_f32_s32(lo), vcvtq_f32_s32(hi)}; }
};

inline I32x8 operator-(I32x8 a, I32x8 b) { return {vsubq_s32(a.lo, b.lo), vsubq_s32(a.hi, b.hi)}; }
inline I32x8 operator*(I32x8 a, I32x8 b) { return {vmulq_s32(a.lo, b.lo), vmulq_s32(a.hi, b.hi)}; }
template <int First, int Count>
inline I32x8 signed_field(I32x8 a) {
  return {vshrq_n_s32(vshlq_n_s32(a.lo, 32 - First - Count), 32 - Count),
          vshrq_n_s32(vshlq_n_s32(a.hi, 32 - First - Count), 32 - Count)};
}
template <int First, int Count>
inline I32x8 field(I32x8 a) {
  const uint32x4_t lo = vreinterpretq_u32_s32(vshlq_n_s32(a.lo, 32 - First - Count));
  const uint32x4_t hi = vreinterpretq_u32_s32(vshlq_n_s32(a.hi, 32 - First - Count));
  return {vreinterpretq_s32_u32(vshrq_n_u32(lo, 32 - Count)), vreinterpretq_s32_u32(vshrq_n_u32(hi, 32 - Count))};
}

inline F32x8 abs(F32x8 a) { return {vabsq_f32(a.lo), vabsq_f32(a.hi)}; }

inline int32_t store_rounded(F32x8 a, int8_t* q) {
  const int16x8_t half = vcombine_s16(vmovn_s32(vcvtnq_s32_f32(a.lo)), vmovn_s32(vcvtnq_s32_f32(a.hi)));
  vst1_s8(q, vmovn_s16(half));
  return vaddlvq_s16(half);
}

#else

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

struct I32x8 {
  int32_t v[kLanes];

  static I32x8 set1(int32_t x) { return {{x, x, x, x, x, x, x, x}}; }
  static I32x8 load(const void* p) {
    I32x8 a;
    std::memcpy(a.v, p, sizeof a.v);
    return a;
  }
  static I32x8 load_u8(const uint8_t* p) { return {{p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7]}}; }
  void store(int32_t* p) const { std::memcpy(p, v, sizeof v); }
  F32x8 to_f32() const {
    F32x8 a;
    for (int i = 0; i < kLanes; ++i) a.v[i] = static_cast<float>(v[i]);
    return a;
  }
};

inline I32x8 operator-(I32x8 a, I32x8 b) {
  for (int i = 0; i < kLanes; ++i) a.v[i] -= b.v[i];
  return a;
}
inline I32x8 operator*(I32x8 a, I32x8 b) {
  for (int i = 0; i < kLanes; ++i) a.v[i] *= b.v[i];
  return a;
}
template <int First, int Count>
inline I32x8 field(I32x8 a) {
  for (int i = 0; i < kLanes; ++i) a.v[i] = static_cast<uint32_t>(a.v[i]) << (32 - First - Count) >> (32 - Count);
  return a;
}
template <int First, int Count>
inline I32x8 signed_field(I32x8 a) {
  for (int i = 0; i < kLanes; ++i) {
    a.v[i] = static_cast<int32_t>(static_cast<uint32_t>(a.v[i]) << (32 - First - Count)) >> (32 - Count);
  }
  return a;
}

inline F32x8 abs(F32x8 a) {
  for (int i = 0; i < kLanes; ++i) a.v[i] = __builtin_fabsf(a.v[i]);
  return a;
}

inline int32_t store_rounded(F32x8 a, int8_t* q) {
  int32_t sum = 0;
  for (int i = 0; i < kLanes; ++i) {
    // 1.5 · 2^23 has a last bit of value 1: adding it rounds to an integer, ties to even.
    q[i] = static_cast<int8_t>((a.v[i] + 12582912.0f) - 12582912.0f);
    sum += q[i];
  }
  return sum;
}

#endif

}  // namespace sala::SALA_ISA
