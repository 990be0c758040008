// The dot products of simd_int8.h with VNNI: vpdpbusd multiplies four unsigned bytes by four signed ones and adds them to a
// 32-bit lane, exactly. Written once, over the 64 bytes that hold four columns of a panel: one register of AVX-512, two of AVX.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/cpu/simd.h"

namespace sala::SALA_ISA {

// How far ahead of the weights memory is read in dot_nibbles and dot_int8. Their panels are met once a token: they are fetched as data
// that will not be met again, and leave the caches to what is.
constexpr int kPrefetchBytes = 2048;

#if SALA_ISA_avx512_vnni

constexpr int kTokenTile = 12;      // as many sums as two units of five cycles need; the weights come in once for all
constexpr int kSmallTokenTile = 8;  // rows of one step of decoding

// Four columns of a panel: row r's bytes, or its 32-bit sum, are lane r.
struct Lanes {
  __m512i v;

  static Lanes zero() { return {_mm512_setzero_si512()}; }
  static Lanes set1(int32_t x) { return {_mm512_set1_epi32(x)}; }
  static Lanes load(const void* p) { return {_mm512_load_si512(p)}; }
  void store(void* p) const { _mm512_store_si512(p, v); }
};

inline Lanes operator+(Lanes a, Lanes b) { return {_mm512_add_epi32(a.v, b.v)}; }
inline Lanes operator-(Lanes a, Lanes b) { return {_mm512_sub_epi32(a.v, b.v)}; }
inline Lanes low_nibbles(Lanes a) { return {_mm512_and_si512(a.v, _mm512_set1_epi8(15))}; }
inline Lanes high_nibbles(Lanes a) {
  return {_mm512_and_si512(_mm512_srli_epi16(a.v, 4), _mm512_set1_epi8(15))};
}
inline Lanes add_dot(Lanes sum, Lanes unsigned_bytes, Lanes signed_bytes) {
  return {_mm512_dpbusd_epi32(sum.v, unsigned_bytes.v, signed_bytes.v)};
}

#else

constexpr int kTokenTile = 6;       // 12 sums, 2 weights and 1 activation of 16 registers
constexpr int kSmallTokenTile = 4;  // the nibbles and their mask as well

struct Lanes {
  __m256i low, high;  // rows 0–7 and 8–15

  static Lanes zero() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
  static Lanes set1(int32_t x) {
    const __m256i v = _mm256_set1_epi32(x);
    return {v, v};
  }
  static Lanes load(const void* p) {
    const __m256i* from = static_cast<const __m256i*>(p);
    return {_mm256_load_si256(from), _mm256_load_si256(from + 1)};
  }
  void store(void* p) const {
    __m256i* to = static_cast<__m256i*>(p);
    _mm256_store_si256(to, low);
    _mm256_store_si256(to + 1, high);
  }
};

inline Lanes operator+(Lanes a, Lanes b) { return {_mm256_add_epi32(a.low, b.low), _mm256_add_epi32(a.high, b.high)}; }
inline Lanes operator-(Lanes a, Lanes b) { return {_mm256_sub_epi32(a.low, b.low), _mm256_sub_epi32(a.high, b.high)}; }
inline Lanes low_nibbles(Lanes a) {
  const __m256i mask = _mm256_set1_epi8(15);
  return {_mm256_and_si256(a.low, mask), _mm256_and_si256(a.high, mask)};
}
inline Lanes high_nibbles(Lanes a) { return low_nibbles({_mm256_srli_epi16(a.low, 4), _mm256_srli_epi16(a.high, 4)}); }

#if SALA_MODEL_DPBUSD
// What vpdpbusd does, for machines that lack it: tests run all that is around it.
inline __m256i dpbusd(__m256i sum, __m256i a, __m256i b) {
  const __m256i low_byte = _mm256_set1_epi16(255);
  const __m256i even = _mm256_madd_epi16(_mm256_and_si256(a, low_byte), _mm256_srai_epi16(_mm256_slli_epi16(b, 8), 8));
  const __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(a, 8), _mm256_srai_epi16(b, 8));
  return _mm256_add_epi32(sum, _mm256_add_epi32(even, odd));
}
#else
inline __m256i dpbusd(__m256i sum, __m256i a, __m256i b) { return _mm256_dpbusd_avx_epi32(sum, a, b); }
#endif

inline Lanes add_dot(Lanes sum, Lanes unsigned_bytes, Lanes signed_bytes) {
  return {dpbusd(sum.low, unsigned_bytes.low, signed_bytes.low), dpbusd(sum.high, unsigned_bytes.high, signed_bytes.high)};
}

#endif

// Four activations, in all lanes.
inline Lanes four_of(const int8_t* row) {
  int32_t four;
  std::memcpy(&four, row, 4);
  return Lanes::set1(four);
}

template <int Tokens>
inline void load_sums(const int32_t* sums, Lanes (&sum)[Tokens]) {
#pragma GCC unroll 16
  for (int t = 0; t < Tokens; ++t) sum[t] = Lanes::load(sums + 16 * t);
}

template <int Tokens>
inline void store_sums(const Lanes (&sum)[Tokens], int32_t* sums) {
#pragma GCC unroll 16
  for (int t = 0; t < Tokens; ++t) sum[t].store(sums + 16 * t);
}

// sum[t] += the four products of each row of w with row t of the activations.
template <int Tokens>
inline void dot_step(Lanes w, const int8_t* rows, int64_t stride, Lanes (&sum)[Tokens]) {
#pragma GCC unroll 16
  for (int t = 0; t < Tokens; ++t) sum[t] = add_dot(sum[t], w, four_of(rows + t * stride));
}

template <int Tokens>
inline void dot_bytes(const uint8_t* panel, const int8_t* rows, int64_t stride, int64_t n_columns, int32_t* sums) {
  static_assert(Tokens >= 1 && Tokens <= kTokenTile);
  Lanes sum[Tokens];
  load_sums<Tokens>(sums, sum);
  for (; n_columns > 0; n_columns -= 8, panel += 128, rows += 8) {
    dot_step<Tokens>(Lanes::load(panel), rows, stride, sum);
    dot_step<Tokens>(Lanes::load(panel + 64), rows + 4, stride, sum);
  }
  store_sums<Tokens>(sum, sums);
}

template <int Tokens>
inline void dot_nibbles(const uint8_t* panel, const int8_t* rows, int64_t stride, int64_t n_columns, int32_t* sums) {
  static_assert(Tokens >= 1 && Tokens <= kSmallTokenTile);
  // A product takes five cycles: few tokens would wait for their own sums, so each nibble of a byte has one.
  constexpr int kSecond = Tokens <= 2 ? Tokens : 1;
  Lanes sum[Tokens], second[kSecond];
  load_sums<Tokens>(sums, sum);
  for (Lanes& s : second) s = Lanes::zero();
  for (; n_columns > 0; n_columns -= 8, panel += 64, rows += 8) {
    __builtin_prefetch(panel + kPrefetchBytes, 0, 0);
    const Lanes pairs = Lanes::load(panel);
    dot_step<Tokens>(low_nibbles(pairs), rows, stride, sum);
    if constexpr (kSecond == Tokens) dot_step<Tokens>(high_nibbles(pairs), rows + 4, stride, second);
    else dot_step<Tokens>(high_nibbles(pairs), rows + 4, stride, sum);
  }
  if constexpr (kSecond == Tokens) {
    for (int t = 0; t < Tokens; ++t) sum[t] = sum[t] + second[t];
  }
  store_sums<Tokens>(sum, sums);
}

// The activation is made the unsigned factor by adding 128, and 128 · Σ weights is taken off at the end.
template <int Tokens>
inline void dot_int8(const uint8_t* panel, const int8_t* rows, int64_t stride, int64_t n_columns, int32_t* sums) {
  static_assert(Tokens >= 1 && Tokens <= kSmallTokenTile);
  constexpr uint32_t k128 = 0x80808080u;
  Lanes sum[Tokens], excess = Lanes::zero();
  load_sums<Tokens>(sums, sum);
  for (; n_columns > 0; n_columns -= 4, panel += 64, rows += 4) {
    __builtin_prefetch(panel + kPrefetchBytes, 0, 0);
    const Lanes w = Lanes::load(panel);
    excess = add_dot(excess, Lanes::set1(static_cast<int32_t>(k128)), w);
#pragma GCC unroll 16
    for (int t = 0; t < Tokens; ++t) {
      uint32_t four;
      std::memcpy(&four, rows + t * stride, 4);
      sum[t] = add_dot(sum[t], Lanes::set1(static_cast<int32_t>(four ^ k128)), w);
    }
  }
#pragma GCC unroll 16
  for (int t = 0; t < Tokens; ++t) sum[t] = sum[t] - excess;
  store_sums<Tokens>(sum, sums);
}

inline void unpack_nibbles(const uint8_t* nibbles, int n_columns, uint8_t* bytes) {
  for (int k = 0; k < n_columns; k += 8, nibbles += 64, bytes += 128) {
    __builtin_prefetch(nibbles + kPrefetchBytes);
    const Lanes pairs = Lanes::load(nibbles);
    low_nibbles(pairs).store(bytes);
    high_nibbles(pairs).store(bytes + 64);
  }
}

}  // namespace sala::SALA_ISA
