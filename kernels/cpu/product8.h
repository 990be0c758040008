// Products of few rows with a tile of 8-bit keys or values, whose codes become floats in registers on the way: for some rows a tile
// is read once, so that converting it to memory first would cost as much as the products. Every element is the same chain of FMAs
// as product() makes of the converted tile, so its bits are the same.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/cpu/attention_tile.h"
#include "kernels/cpu/simd_int8.h"

namespace sala::SALA_ISA {

constexpr int kProduct8Rows = 8;  // at most

// words[w, i] = the codes 4w … 4w + 3 of row(i), for i < 8, `stride` words a row; 0 for rows from n (1 … 8) on. head_dim: a multiple of 4.
template <class Row>
inline void turn_eight_rows(Row row, int n, int head_dim, int32_t* words, int stride) {
  int w = 0;
  for (; w + kLanes <= head_dim / 4; w += kLanes) {
    F32x8 block[kLanes];  // bits that are moved, not numbers
    for (int r = 0; r < kLanes; ++r) block[r] = r < n ? F32x8::load(reinterpret_cast<const float*>(row(r) + 4 * w)) : F32x8::zero();
    transpose(block);
    for (int r = 0; r < kLanes; ++r) block[r].store(reinterpret_cast<float*>(words + (w + r) * stride));
  }
  for (; w < head_dim / 4; ++w) {
    for (int r = 0; r < kLanes; ++r) {
      words[w * stride + r] = 0;
      if (r < n) std::memcpy(words + w * stride + r, row(r) + 4 * w, 4);
    }
  }
}

// Keys with lanes that are keys: words[w, i] = the codes 4w … 4w + 3 of row i, 64 words a row. Keys from n_rows (1 … 64) to the next
// multiple of 8 become 0, later ones are left as they were. head_dim: a multiple of 8.
inline void turn_words(const int8_t* rows, int n_rows, int head_dim, int32_t* words) {
  for (int i = 0; i < n_rows; i += kLanes) {
    const int n = n_rows - i < kLanes ? n_rows - i : kLanes;
    turn_eight_rows([&](int r) { return rows + int64_t{i + r} * head_dim; }, n, head_dim, words + i, kTile);
  }
}

// What is read next, fetched into the cache a line at a time.
struct Lines {
  const int8_t* next = nullptr;
  const int8_t* end = nullptr;

  void fetch() {
    if (next >= end) return;
    __builtin_prefetch(next);
    next += 64;
  }
};

// Component First / 8 of each of the four codes in w's lanes.
template <int First, int Rows>
inline void add_component(I32x8 w, const float* q, int q_stride, F32x8 (&sums)[Rows]) {
  const F32x8 key = signed_field<First, 8>(w).to_f32();
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r) sums[r] = fma(F32x8::set1(q[r * q_stride + First / 8]), key, sums[r]);
}

// logits[r, i] = q[r] · codes of key i, for keys first … end − 1, both multiples of 8; 64 logits a row.
template <int Rows>
inline void keys_product(const float* q, const int32_t* words, int head_dim, int first, int end, float* logits, Lines (&lines)[2]) {
  for (int i = first; i < end; i += kLanes) {
    F32x8 sums[Rows];
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) sums[r] = F32x8::zero();
    for (int c = 0; c < head_dim; c += 4) {
      const I32x8 w = I32x8::load(words + c / 4 * kTile + i);
      for (Lines& some : lines) some.fetch();
      add_component<0>(w, q + c, head_dim, sums);
      add_component<8>(w, q + c, head_dim, sums);
      add_component<16>(w, q + c, head_dim, sums);
      add_component<24>(w, q + c, head_dim, sums);
    }
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) sums[r].store(logits + r * kTile + i);
  }
}

// o[r] += Σ over n values of weights[r, i] · codes of value i; 64 weights a row.
template <int Rows>
inline void values_product(const float* weights, const int8_t* codes, int n, int head_dim, float* o) {
  for (int c = 0; c < head_dim; c += kLanes) {
    F32x8 sums[Rows];
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) sums[r] = F32x8::load(o + r * head_dim + c);
    for (int i = 0; i < n; ++i) {
      const F32x8 value = F32x8::load_i8(codes + int64_t{i} * head_dim + c);
#pragma GCC unroll 8
      for (int r = 0; r < Rows; ++r) sums[r] = fma(F32x8::set1(weights[r * kTile + i]), value, sums[r]);
    }
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) sums[r].store(o + r * head_dim + c);
  }
}

// use<n_rows>(), 1 … kProduct8Rows.
template <class Use>
inline void with_rows(int n_rows, Use&& use) {
  switch (n_rows) {
    case 1: return use.template operator()<1>();
    case 2: return use.template operator()<2>();
    case 3: return use.template operator()<3>();
    case 4: return use.template operator()<4>();
    case 5: return use.template operator()<5>();
    case 6: return use.template operator()<6>();
    case 7: return use.template operator()<7>();
    default: return use.template operator()<8>();
  }
}

}  // namespace sala::SALA_ISA
