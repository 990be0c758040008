// Eight fp32 lanes, in three forms with identical bits: AVX2, NEON (two halves of four) and plain C++. The operators of
// kernels/cpu are written once over it. Intrinsics live here (and, for integer dot products, in simd_int8.h) only.
// Lane for lane every operation is the IEEE one, so only three things need care: where a multiply and an add are fused
// (fma() alone does it), the order of horizontal sums (sum()), and what is not IEEE at all (exp()).
#pragma once

#include <cstdint>
#include <cstring>

// The instruction sets by what they have in common.
#if SALA_ISA_avx_vnni || SALA_ISA_avx512_vnni
#define SALA_VNNI 1
#endif
#if SALA_ISA_avx2 || SALA_VNNI
#define SALA_AVX2 1
#include <immintrin.h>
#elif SALA_ISA_neon || SALA_ISA_neon_i8mm
#define SALA_NEON 1
#include <arm_neon.h>
#endif

namespace sala::SALA_ISA {

constexpr int kLanes = 8;

// a · b + c, rounded once.
inline float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }

#if SALA_AVX2

struct F32x8 {
  __m256 v;

  static F32x8 zero() { return {_mm256_setzero_ps()}; }
  static F32x8 set1(float x) { return {_mm256_set1_ps(x)}; }
  static F32x8 load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static F32x8 load_i8(const int8_t* p) {
    return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))))};
  }
  static F32x8 load_f16(const uint16_t* p) {
    return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
  }
  static F32x8 load_bf16(const uint16_t* p) {
    const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(wide, 16))};
  }
  void store(float* p) const { _mm256_storeu_ps(p, v); }
  // The upper halves of the lanes' bits: cut off, not rounded.
  void store_bf16(uint16_t* p) const {
    const __m256i halves = _mm256_srli_epi32(_mm256_castps_si256(v), 16);
    const __m128i eight = _mm_packus_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), eight);
  }
};

inline F32x8 operator+(F32x8 a, F32x8 b) { return {_mm256_add_ps(a.v, b.v)}; }
inline F32x8 operator-(F32x8 a, F32x8 b) { return {_mm256_sub_ps(a.v, b.v)}; }
inline F32x8 operator*(F32x8 a, F32x8 b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline F32x8 operator/(F32x8 a, F32x8 b) { return {_mm256_div_ps(a.v, b.v)}; }
inline F32x8 fma(F32x8 a, F32x8 b, F32x8 c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
// a > b ? a : b and a < b ? a : b: a NaN in either gives b.
inline F32x8 max(F32x8 a, F32x8 b) { return {_mm256_max_ps(a.v, b.v)}; }
inline F32x8 min(F32x8 a, F32x8 b) { return {_mm256_min_ps(a.v, b.v)}; }
// a < b ? x : y.
inline F32x8 select_less(F32x8 a, F32x8 b, F32x8 x, F32x8 y) {
  return {_mm256_blendv_ps(y.v, x.v, _mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ))};
}
// The float whose bits are (bits of a + add) << 23.
inline F32x8 exponent_from_bits(F32x8 a, int32_t add) {
  const __m256i bits = _mm256_add_epi32(_mm256_castps_si256(a.v), _mm256_set1_epi32(add));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(bits, 23))};
}
// The float whose bits are the integer that x is rounded to.
inline F32x8 with_bits(F32x8 x) { return {_mm256_castsi256_ps(_mm256_cvtps_epi32(x.v))}; }
// The float whose bits are those of a + (those of b << 23).
inline F32x8 add_exponent(F32x8 a, F32x8 b) {
  return {_mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a.v), _mm256_slli_epi32(_mm256_castps_si256(b.v), 23)))};
}
// ((a0 + a4) + (a2 + a6)) + ((a1 + a5) + (a3 + a7)).
inline float sum(F32x8 a) {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
inline float max_lane(F32x8 a) {
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}
// Lane j of rows[i] becomes lane i of rows[j].
inline void transpose(F32x8 (&rows)[kLanes]) {
  __m256 pairs[8], fours[8];
  for (int i = 0; i < 8; i += 2) {
    pairs[i] = _mm256_unpacklo_ps(rows[i].v, rows[i + 1].v);
    pairs[i + 1] = _mm256_unpackhi_ps(rows[i].v, rows[i + 1].v);
  }
  for (int i = 0; i < 8; i += 4) {
    fours[i] = _mm256_shuffle_ps(pairs[i], pairs[i + 2], 0x44);
    fours[i + 1] = _mm256_shuffle_ps(pairs[i], pairs[i + 2], 0xEE);
    fours[i + 2] = _mm256_shuffle_ps(pairs[i + 1], pairs[i + 3], 0x44);
    fours[i + 3] = _mm256_shuffle_ps(pairs[i + 1], pairs[i + 3], 0xEE);
  }
  for (int i = 0; i < 4; ++i) {
    rows[i].v = _mm256_permute2f128_ps(fours[i], fours[i + 4], 0x20);
    rows[i + 4].v = _mm256_permute2f128_ps(fours[i], fours[i + 4], 0x31);
  }
}

#elif SALA_NEON

struct F32x8 {
  float32x4_t lo, hi;

  static F32x8 zero() { return {vdupq_n_f32(0), vdupq_n_f32(0)}; }
  static F32x8 set1(float x) { return {vdupq_n_f32(x), vdupq_n_f32(x)}; }
  static F32x8 load(const float* p) { return {vld1q_f32(p), vld1q_f32(p + 4)}; }
  static F32x8 load_i8(const int8_t* p) {
    const int16x8_t wide = vmovl_s8(vld1_s8(p));
    return {vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(wide)))};
  }
  static F32x8 load_f16(const uint16_t* p) {
    return {vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))), vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + 4)))};
  }
  static F32x8 load_bf16(const uint16_t* p) {
    return {vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16)),
            vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p + 4), 16))};
  }
  void store(float* p) const {
    vst1q_f32(p, lo);
    vst1q_f32(p + 4, hi);
  }
  void store_bf16(uint16_t* p) const {
    vst1_u16(p, vshrn_n_u32(vreinterpretq_u32_f32(lo), 16));
    vst1_u16(p + 4, vshrn_n_u32(vreinterpretq_u32_f32(hi), 16));
  }
};

inline F32x8 operator+(F32x8 a, F32x8 b) { return {vaddq_f32(a.lo, b.lo), vaddq_f32(a.hi, b.hi)}; }
inline F32x8 operator-(F32x8 a, F32x8 b) { return {vsubq_f32(a.lo, b.lo), vsubq_f32(a.hi, b.hi)}; }
inline F32x8 operator*(F32x8 a, F32x8 b) { return {vmulq_f32(a.lo, b.lo), vmulq_f32(a.hi, b.hi)}; }
inline F32x8 operator/(F32x8 a, F32x8 b) { return {vdivq_f32(a.lo, b.lo), vdivq_f32(a.hi, b.hi)}; }
inline F32x8 fma(F32x8 a, F32x8 b, F32x8 c) { return {vfmaq_f32(c.lo, a.lo, b.lo), vfmaq_f32(c.hi, a.hi, b.hi)}; }
// Not vmaxq and vminq, which differ from the other forms at NaN and ±0.
inline F32x8 max(F32x8 a, F32x8 b) {
  return {vbslq_f32(vcgtq_f32(a.lo, b.lo), a.lo, b.lo), vbslq_f32(vcgtq_f32(a.hi, b.hi), a.hi, b.hi)};
}
inline F32x8 min(F32x8 a, F32x8 b) {
  return {vbslq_f32(vcltq_f32(a.lo, b.lo), a.lo, b.lo), vbslq_f32(vcltq_f32(a.hi, b.hi), a.hi, b.hi)};
}
inline F32x8 select_less(F32x8 a, F32x8 b, F32x8 x, F32x8 y) {
  return {vbslq_f32(vcltq_f32(a.lo, b.lo), x.lo, y.lo), vbslq_f32(vcltq_f32(a.hi, b.hi), x.hi, y.hi)};
}
inline F32x8 exponent_from_bits(F32x8 a, int32_t add) {
  const int32x4_t d = vdupq_n_s32(add);
  return {vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vreinterpretq_s32_f32(a.lo), d), 23)),
          vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vreinterpretq_s32_f32(a.hi), d), 23))};
}
inline F32x8 with_bits(F32x8 x) {
  return {vreinterpretq_f32_s32(vcvtnq_s32_f32(x.lo)), vreinterpretq_f32_s32(vcvtnq_s32_f32(x.hi))};
}
inline F32x8 add_exponent(F32x8 a, F32x8 b) {
  return {vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(a.lo), vshlq_n_s32(vreinterpretq_s32_f32(b.lo), 23))),
          vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(a.hi), vshlq_n_s32(vreinterpretq_s32_f32(b.hi), 23)))};
}
inline float sum(F32x8 a) {
  const float32x4_t four = vaddq_f32(a.lo, a.hi);
  const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
  return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}
inline float max_lane(F32x8 a) {
  const float32x4_t four = vbslq_f32(vcgtq_f32(a.lo, a.hi), a.lo, a.hi);
  const float32x2_t low = vget_low_f32(four), high = vget_high_f32(four);
  const float32x2_t two = vbsl_f32(vcgt_f32(low, high), low, high);
  const float x = vget_lane_f32(two, 0), y = vget_lane_f32(two, 1);
  return x > y ? x : y;
}
inline void transpose(F32x8 (&rows)[kLanes]) {
  const auto four_by_four = [](float32x4_t& a, float32x4_t& b, float32x4_t& c, float32x4_t& d) {
    const float64x2_t ab_even = vreinterpretq_f64_f32(vtrn1q_f32(a, b));
    const float64x2_t ab_odd = vreinterpretq_f64_f32(vtrn2q_f32(a, b));
    const float64x2_t cd_even = vreinterpretq_f64_f32(vtrn1q_f32(c, d));
    const float64x2_t cd_odd = vreinterpretq_f64_f32(vtrn2q_f32(c, d));
    a = vreinterpretq_f32_f64(vtrn1q_f64(ab_even, cd_even));
    b = vreinterpretq_f32_f64(vtrn1q_f64(ab_odd, cd_odd));
    c = vreinterpretq_f32_f64(vtrn2q_f64(ab_even, cd_even));
    d = vreinterpretq_f32_f64(vtrn2q_f64(ab_odd, cd_odd));
  };
  four_by_four(rows[0].lo, rows[1].lo, rows[2].lo, rows[3].lo);
  four_by_four(rows[0].hi, rows[1].hi, rows[2].hi, rows[3].hi);
  four_by_four(rows[4].lo, rows[5].lo, rows[6].lo, rows[7].lo);
  four_by_four(rows[4].hi, rows[5].hi, rows[6].hi, rows[7].hi);
  for (int i = 0; i < 4; ++i) {
    const float32x4_t upper_right = rows[i].hi;
    rows[i].hi = rows[i + 4].lo;
    rows[i + 4].lo = upper_right;
  }
}

#else

struct F32x8 {
  float v[kLanes];

  static F32x8 zero() { return {}; }
  static F32x8 set1(float x) { return {{x, x, x, x, x, x, x, x}}; }
  static F32x8 load(const float* p) {
    F32x8 a;
    std::memcpy(a.v, p, sizeof a.v);
    return a;
  }
  static F32x8 load_i8(const int8_t* p) {
    F32x8 a;
    for (int i = 0; i < kLanes; ++i) a.v[i] = p[i];
    return a;
  }
  static F32x8 load_f16(const uint16_t* p) {
    F32x8 a;
    for (int i = 0; i < kLanes; ++i) {
      // A half as a float of 2^112 times less, the exponent being re-biased by one exact product; that also normalises
      // subnormal halves. Infinity and NaN need the full exponent by hand.
      const uint32_t magnitude = (p[i] & 0x7FFFu) << 13;
      float x;
      std::memcpy(&x, &magnitude, 4);
      x *= 0x1p112f;
      uint32_t bits;
      std::memcpy(&bits, &x, 4);
      if ((p[i] & 0x7C00u) == 0x7C00u) bits = 0x7F800000u | magnitude | ((magnitude & 0x7FFFFFu) ? 0x400000u : 0u);
      bits |= (p[i] & 0x8000u) << 16;
      std::memcpy(&a.v[i], &bits, 4);
    }
    return a;
  }
  static F32x8 load_bf16(const uint16_t* p) {
    F32x8 a;
    for (int i = 0; i < kLanes; ++i) {
      const uint32_t bits = uint32_t{p[i]} << 16;
      std::memcpy(&a.v[i], &bits, 4);
    }
    return a;
  }
  void store(float* p) const { std::memcpy(p, v, sizeof v); }
  void store_bf16(uint16_t* p) const {
    for (int i = 0; i < kLanes; ++i) {
      uint32_t bits;
      std::memcpy(&bits, &v[i], 4);
      p[i] = static_cast<uint16_t>(bits >> 16);
    }
  }
};

inline F32x8 operator+(F32x8 a, F32x8 b) {
  for (int i = 0; i < kLanes; ++i) a.v[i] += b.v[i];
  return a;
}
inline F32x8 operator-(F32x8 a, F32x8 b) {
  for (int i = 0; i < kLanes; ++i) a.v[i] -= b.v[i];
  return a;
}
inline F32x8 operator*(F32x8 a, F32x8 b) {
  for (int i = 0; i < kLanes; ++i) a.v[i] *= b.v[i];
  return a;
}
inline F32x8 operator/(F32x8 a, F32x8 b) {
  for (int i = 0; i < kLanes; ++i) a.v[i] /= b.v[i];
  return a;
}
inline F32x8 fma(F32x8 a, F32x8 b, F32x8 c) {
  for (int i = 0; i < kLanes; ++i) c.v[i] = __builtin_fmaf(a.v[i], b.v[i], c.v[i]);
  return c;
}
inline F32x8 max(F32x8 a, F32x8 b) {
  for (int i = 0; i < kLanes; ++i) a.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i];
  return a;
}
inline F32x8 min(F32x8 a, F32x8 b) {
  for (int i = 0; i < kLanes; ++i) a.v[i] = a.v[i] < b.v[i] ? a.v[i] : b.v[i];
  return a;
}
inline F32x8 select_less(F32x8 a, F32x8 b, F32x8 x, F32x8 y) {
  for (int i = 0; i < kLanes; ++i) a.v[i] = a.v[i] < b.v[i] ? x.v[i] : y.v[i];
  return a;
}
inline F32x8 exponent_from_bits(F32x8 a, int32_t add) {
  for (int i = 0; i < kLanes; ++i) {
    uint32_t bits;
    std::memcpy(&bits, &a.v[i], 4);
    bits = (bits + static_cast<uint32_t>(add)) << 23;
    std::memcpy(&a.v[i], &bits, 4);
  }
  return a;
}
inline F32x8 with_bits(F32x8 x) {
  for (int i = 0; i < kLanes; ++i) {
    const int32_t bits = static_cast<int32_t>(__builtin_nearbyintf(x.v[i]));
    std::memcpy(&x.v[i], &bits, 4);
  }
  return x;
}
inline F32x8 add_exponent(F32x8 a, F32x8 b) {
  for (int i = 0; i < kLanes; ++i) {
    uint32_t bits, power;
    std::memcpy(&bits, &a.v[i], 4);
    std::memcpy(&power, &b.v[i], 4);
    bits += power << 23;
    std::memcpy(&a.v[i], &bits, 4);
  }
  return a;
}
inline float sum(F32x8 a) {
  float four[4];
  for (int i = 0; i < 4; ++i) four[i] = a.v[i] + a.v[i + 4];
  return (four[0] + four[2]) + (four[1] + four[3]);
}
inline float max_lane(F32x8 a) {
  float four[4];
  for (int i = 0; i < 4; ++i) four[i] = a.v[i] > a.v[i + 4] ? a.v[i] : a.v[i + 4];
  const float x = four[0] > four[2] ? four[0] : four[2];
  const float y = four[1] > four[3] ? four[1] : four[3];
  return x > y ? x : y;
}
inline void transpose(F32x8 (&rows)[kLanes]) {
  for (int i = 0; i < kLanes; ++i) {
    for (int j = 0; j < i; ++j) {
      const float upper = rows[j].v[i];
      rows[j].v[i] = rows[i].v[j];
      rows[i].v[j] = upper;
    }
  }
}

#endif

// ---- the same for all forms ----

inline F32x8 load_floats(const float* p) { return F32x8::load(p); }
inline F32x8 load_floats(const int8_t* p) { return F32x8::load_i8(p); }

inline float from_bf16(uint16_t half) {
  const uint32_t bits = uint32_t{half} << 16;
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}

// The first n lanes from p (1 … 8), 0 in the others; memory behind them is not touched. So the end of an array
// takes the same path, and gives the same bits, as its middle.
inline F32x8 load_part(const float* p, int n) {
  if (n >= kLanes) return F32x8::load(p);
  float lanes[kLanes] = {};
  for (int i = 0; i < n; ++i) lanes[i] = p[i];
  return F32x8::load(lanes);
}
inline void store_part(F32x8 a, float* p, int n) {
  if (n >= kLanes) return a.store(p);
  float lanes[kLanes];
  a.store(lanes);
  for (int i = 0; i < n; ++i) p[i] = lanes[i];
}

// e^x within 1.01 ulp; exactly 0 below −86.5 (the result would come near the subnormals), so for −∞ too; ∞ above 88.72;
// NaN stays. x = n·ln 2 + r with |r| ≤ ln 2 / 2 (Cody & Waite 1980, the product n·ln 2 in two parts), e^r by the
// polynomial of Cephes' expf (Moshier), whose last steps are fused.
inline F32x8 exp(F32x8 x) {
  const F32x8 low = F32x8::set1(-86.5f);
  const F32x8 y = max(low, min(F32x8::set1(89.0f), x));  // both keep NaN
  // Adding 1.5 · 2^23 rounds to an integer and leaves it, in two's complement, in the low bits.
  const F32x8 magic = F32x8::set1(12582912.0f);
  const F32x8 t = fma(y, F32x8::set1(1.44269504f), magic);
  const F32x8 n = t - magic;
  F32x8 r = fma(n, F32x8::set1(-0.693359375f), y);
  r = fma(n, F32x8::set1(2.12194440e-4f), r);
  F32x8 p = F32x8::set1(1.9875691500e-4f);
  p = fma(p, r, F32x8::set1(1.3981999507e-3f));
  p = fma(p, r, F32x8::set1(8.3334519073e-3f));
  p = fma(p, r, F32x8::set1(4.1665795894e-2f));
  p = fma(p, r, F32x8::set1(1.6666665459e-1f));
  p = fma(p, r, F32x8::set1(5.0000001201e-1f));
  p = fma(p, r * r, r) + F32x8::set1(1.0f);
  // n reaches 128, whose power of two is no float: 2p · 2^(n − 1) instead.
  const F32x8 power = exponent_from_bits(t, 126);
  return select_less(x, low, F32x8::zero(), (p + p) * power);
}

inline float exp(float x) {
  float lanes[kLanes];
  exp(F32x8::set1(x)).store(lanes);
  return lanes[0];
}

// e^x for x ≤ 0, in half the instructions: within 1.5e-6, and e^−86 (4.5e-38) below −86, for −∞ and NaN too.
inline F32x8 exp_of_negative(F32x8 x) {
  const F32x8 y = max(x, F32x8::set1(-86.0f));
  const F32x8 magic = F32x8::set1(12582912.0f), log2_e = F32x8::set1(1.44269504f);
  const F32x8 t = fma(y, log2_e, magic);
  const F32x8 f = fma(y, log2_e, magic - t);  // y · log₂ e less the nearest integer
  // 2^f by a polynomial whose largest relative error is the least (9.2e-8).
  F32x8 p = F32x8::set1(1.32647261e-3f);
  p = fma(p, f, F32x8::set1(9.67151299e-3f));
  p = fma(p, f, F32x8::set1(5.55073358e-2f));
  p = fma(p, f, F32x8::set1(2.40222424e-1f));
  p = fma(p, f, F32x8::set1(6.93147004e-1f));
  p = fma(p, f, F32x8::set1(1.0f));
  return add_exponent(p, t);
}

// The same within 8e-5, in three instructions less; F: F32x8 or F32x16.
template <class F>
inline F exp_of_negative_roughly(F x) {
  const F y = max(x, F::set1(-86.0f));
  const F magic = F::set1(12582912.0f), log2_e = F::set1(1.44269504f);
  const F t = fma(y, log2_e, magic);
  const F f = fma(y, log2_e, magic - t);
  F p = F::set1(5.51717021e-2f);
  p = fma(p, f, F::set1(2.42611200e-1f));
  p = fma(p, f, F::set1(6.93260968e-1f));
  p = fma(p, f, F::set1(9.99928057e-1f));
  return add_exponent(p, t);
}

// The same within 4 %, none in the mean, in three instructions: between powers of two it is a line (Schraudolph 1999).
template <class F>
inline F exp_of_negative_by_lines(F x) {
  constexpr float kOctave = 8388608.0f, kMeanError = 0.0573f;  // 2^23; the mean of log2(1 + f) − f
  return with_bits(fma(max(x, F::set1(-86.0f)), F::set1(1.44269504f * kOctave), F::set1((127 - kMeanError) * kOctave)));
}

// 1 / (1 + e^−x).
inline F32x8 sigmoid(F32x8 x) {
  const F32x8 one = F32x8::set1(1.0f);
  return one / (one + exp(F32x8::zero() - x));
}

// x / (1 + e^−x).
inline F32x8 silu(F32x8 x) { return x / (F32x8::set1(1.0f) + exp(F32x8::zero() - x)); }

}  // namespace sala::SALA_ISA
