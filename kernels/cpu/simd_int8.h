// Exact integer work under the matrix products: dot products of weight panels with 8-bit rows, unpacking of nibbles,
// and the 8-bit rounding of a row. One header of dot products for each kind of instructions, all with the same functions and
// the same results.
//
// The dot products multiply one panel of 16 weight rows by `Tokens` activation rows and add to sums [Tokens, 16]:
//   panel   bytes, 64 for each 4 columns as in an int8 panel; or nibbles, 64 for each 8 columns (kernels/matrix.h)
//   rows    row t at rows + t * stride; only n_columns bytes of it are read; −127 … 127, never −128
//   sums    on a 64-byte border, like the panel
//   dot_bytes    unsigned weights 0 … 15 as unpack_nibbles leaves them, n_columns a multiple of 8
//   dot_nibbles  the same out of an int4 panel
//   dot_int8     signed weights −128 … 127, n_columns a multiple of 4
//   dot_codes    unsigned weights 0 … 31 of an int8 panel, rows of −63 … 63, n_columns a multiple of 8
// Tokens: 1 … kTokenTile for dot_bytes, 1 … kSmallTokenTile for the others, which need registers for the weights; dot_codes takes as
// many as dot_bytes where that has a tile of 8 or more.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/cpu/simd.h"
#if SALA_VNNI
#include "kernels/cpu/simd_dot_vnni.h"
#elif SALA_AVX2
#include "kernels/cpu/simd_dot_avx2.h"
#elif SALA_NEON
#include "kernels/cpu/simd_dot_neon.h"
#else
#include "kernels/cpu/simd_dot_portable.h"
#endif

namespace sala::SALA_ISA {

template <int Tokens>
inline void dot_codes(const uint8_t* panel, const int8_t* rows, int64_t stride, int64_t n_columns, int32_t* sums) {
#if SALA_NEON
  dot_int8<Tokens>(panel, rows, stride, n_columns, sums);  // which is as fast there, and what unpack_nibbles leaves may lie otherwise
#else
  dot_bytes<Tokens>(panel, rows, stride, n_columns, sums);
#endif
}

// ---- eight numbers ----

#if SALA_AVX2

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

#elif SALA_NEON

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

// ---- the sixteen rows of a panel ----

#if SALA_ISA_avx512_vnni

struct F32x16 {
  __m512 v;

  static F32x16 set1(float x) { return {_mm512_set1_ps(x)}; }
  static F32x16 load(const float* p) { return {_mm512_loadu_ps(p)}; }
  void store(float* p) const { _mm512_storeu_ps(p, v); }
  F32x8 low_half() const { return {_mm512_castps512_ps256(v)}; }
  F32x8 high_half() const { return {_mm512_extractf32x8_ps(v, 1)}; }
};

inline F32x16 operator-(F32x16 a, F32x16 b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline F32x16 operator*(F32x16 a, F32x16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline F32x16 max(F32x16 a, F32x16 b) { return {_mm512_max_ps(a.v, b.v)}; }
inline F32x16 with_bits(F32x16 x) { return {_mm512_castsi512_ps(_mm512_cvtps_epi32(x.v))}; }
inline F32x16 add_exponent(F32x16 a, F32x16 b) {
  return {_mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a.v), _mm512_slli_epi32(_mm512_castps_si512(b.v), 23)))};
}
inline F32x16 fma(F32x16 a, F32x16 b, F32x16 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }

struct I32x16 {
  __m512i v;

  static I32x16 set1(int32_t x) { return {_mm512_set1_epi32(x)}; }
  static I32x16 load(const int32_t* p) { return {_mm512_loadu_si512(p)}; }
  static I32x16 load_u8(const uint8_t* p) {
    return {_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
  }
  void store(int32_t* p) const { _mm512_storeu_si512(p, v); }
  F32x16 to_f32() const { return {_mm512_cvtepi32_ps(v)}; }
};

inline I32x16 operator*(I32x16 a, I32x16 b) { return {_mm512_mullo_epi32(a.v, b.v)}; }

#else

struct F32x16 {
  F32x8 low, high;

  static F32x16 set1(float x) { return {F32x8::set1(x), F32x8::set1(x)}; }
  static F32x16 load(const float* p) { return {F32x8::load(p), F32x8::load(p + kLanes)}; }
  void store(float* p) const {
    low.store(p);
    high.store(p + kLanes);
  }
  F32x8 low_half() const { return low; }
  F32x8 high_half() const { return high; }
};

inline F32x16 operator-(F32x16 a, F32x16 b) { return {a.low - b.low, a.high - b.high}; }
inline F32x16 operator*(F32x16 a, F32x16 b) { return {a.low * b.low, a.high * b.high}; }
inline F32x16 max(F32x16 a, F32x16 b) { return {max(a.low, b.low), max(a.high, b.high)}; }
inline F32x16 with_bits(F32x16 x) { return {with_bits(x.low), with_bits(x.high)}; }
inline F32x16 add_exponent(F32x16 a, F32x16 b) { return {add_exponent(a.low, b.low), add_exponent(a.high, b.high)}; }
inline F32x16 fma(F32x16 a, F32x16 b, F32x16 c) { return {fma(a.low, b.low, c.low), fma(a.high, b.high, c.high)}; }

struct I32x16 {
  I32x8 low, high;

  static I32x16 set1(int32_t x) { return {I32x8::set1(x), I32x8::set1(x)}; }
  static I32x16 load(const int32_t* p) { return {I32x8::load(p), I32x8::load(p + kLanes)}; }
  static I32x16 load_u8(const uint8_t* p) { return {I32x8::load_u8(p), I32x8::load_u8(p + kLanes)}; }
  void store(int32_t* p) const {
    low.store(p);
    high.store(p + kLanes);
  }
  F32x16 to_f32() const { return {low.to_f32(), high.to_f32()}; }
};

inline I32x16 operator*(I32x16 a, I32x16 b) { return {a.low * b.low, a.high * b.high}; }

#endif

}  // namespace sala::SALA_ISA
