// What is done to a row, or a head of one, between the large products. Operators that fuse several of these steps give the bits of
// the steps one by one.
#pragma once

#include "kernels/cpu/simd.h"
#include "kernels/cpu/simd_int8.h"
#include "kernels/ops.h"

namespace sala::SALA_ISA {

// Four sums side by side, since one would wait for itself at every step.
inline float sum_of_squares(const float* x, int n) {
  F32x8 sums[4] = {F32x8::zero(), F32x8::zero(), F32x8::zero(), F32x8::zero()};
  int c = 0;
  for (; c + 4 * kLanes <= n; c += 4 * kLanes) {
    for (int i = 0; i < 4; ++i) {
      const F32x8 v = F32x8::load(x + c + i * kLanes);
      sums[i] = fma(v, v, sums[i]);
    }
  }
  for (; c < n; c += kLanes) {
    const F32x8 v = load_part(x + c, n - c);
    sums[0] = fma(v, v, sums[0]);
  }
  return sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

// out may be x.
inline void norm_row(const float* x, const float* weight, int n, float eps, float* out) {
  const float mean = sum_of_squares(x, n) / static_cast<float>(n);
  const F32x8 factor = F32x8::set1(1.0f / __builtin_sqrtf(mean + eps));
  for (int c = 0; c < n; c += kLanes) {
    store_part((load_part(x + c, n - c) * factor) * load_part(weight + c, n - c), out + c, n - c);
  }
}

// x = x * sigmoid(gate).
inline void gate_row(float* x, const float* gate, int n) {
  for (int c = 0; c < n; c += kLanes) {
    store_part(load_part(x + c, n - c) * sigmoid(load_part(gate + c, n - c)), x + c, n - c);
  }
}

// gate = silu(gate) * up.
inline void swiglu_row(float* gate, const float* up, int n) {
  for (int c = 0; c < n; c += kLanes) {
    store_part(silu(load_part(gate + c, n - c)) * load_part(up + c, n - c), gate + c, n - c);
  }
}

// One head of one token. cos, sin: [half] of the token.
inline void rotate_head(float* x, const float* cos_row, const float* sin_row, int half) {
  for (int c = 0; c < half; c += kLanes) {
    const int n = half - c;
    const F32x8 cos = load_part(cos_row + c, n), sin = load_part(sin_row + c, n);
    const F32x8 low = load_part(x + c, n), high = load_part(x + c + half, n);
    store_part(fma(low, cos, F32x8::zero() - high * sin), x + c, n);
    store_part(fma(high, cos, low * sin), x + c + half, n);
  }
}

// One group of n values; the sum of q is returned.
inline int32_t quantize_group(const float* x, int n, int8_t* q, float* scale) {
  F32x8 lanes = F32x8::zero();
  for (int i = 0; i < n; i += kLanes) lanes = max(abs(load_part(x + i, n - i)), lanes);
  *scale = max_lane(lanes) / 127;
  if (!(*scale > 0)) {
    std::memset(q, 0, n);
    return 0;
  }
  const F32x8 divisor = F32x8::set1(*scale), limit = F32x8::set1(127), negative_limit = F32x8::set1(-127);
  int32_t sum = 0;
  for (int i = 0; i < n; i += kLanes) {
    const F32x8 ratio = max(min(load_part(x + i, n - i) / divisor, limit), negative_limit);
    if (n - i >= kLanes) {
      sum += store_rounded(ratio, q + i);
    } else {
      int8_t part[kLanes];
      sum += store_rounded(ratio, part);
      std::memcpy(q + i, part, n - i);
    }
  }
  return sum;
}

// Group g of row r, whose values are at x.
inline void quantize_group(const float* x, int64_t r, int n_cols, int g, const Rows8& rows8) {
  const int64_t rg = r * (n_cols / rows8.group_size) + g;
  const int32_t sum = quantize_group(x, rows8.group_size, rows8.q + rg * rows8.group_size, rows8.scales + rg);
  if (rows8.sums) rows8.sums[rg] = sum;
}

// Row r, at x. ordered: scratch [n_cols], used where there is a column order.
inline void quantize_row(const float* x, int64_t r, int n_cols, const Rows8& rows8, float* ordered) {
  if (rows8.column_order) {
    for (int k = 0; k < n_cols; ++k) ordered[k] = x[rows8.column_order[k]];
    x = ordered;
  }
  for (int g = 0; g < n_cols / rows8.group_size; ++g) {
    quantize_group(x + static_cast<int64_t>(g) * rows8.group_size, r, n_cols, g, rows8);
  }
}

}  // namespace sala::SALA_ISA
