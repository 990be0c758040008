// What the two halves of matmul share: 8-bit activations (matmul_q.cpp) and fp32 activations (matmul_x.cpp). Both go
// through the weights panel by panel, threads share out the panels, and no sum over k is ever split between threads or
// tokens.
#pragma once

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/simd.h"

namespace sala::reference {

// Throw internal if shapes or pointers do not fit each other. Defined with the specification, once for all tables.
void check_matmul(const MatmulArgs& args);
void check_swiglu_matmul(const SwigluMatmulArgs& args);

}  // namespace sala::reference

namespace sala::SALA_SHARED_ISA {

void panels_x(const MatmulArgs& args, int begin, int end);

}  // namespace sala::SALA_SHARED_ISA

namespace sala::SALA_ISA {

// Panels begin … end − 1 of one product; panels_x() the same.
void panels_q(const MatmulArgs& args, int begin, int end);

// Tokens that a panel meets at once: their sums (48 KB) and activations (0.7 MB at 896 columns) stay in a core's own
// cache.
constexpr int kTokenBlock = 768;

inline int smaller(int a, int b) { return a < b ? a : b; }

// Calls body(Count<n>{}, first) on runs of Most tokens and then one of what is left: the number of tokens of a register
// tile is known when it is compiled.
template <int N>
struct Count {
  static constexpr int value = N;
};
template <int Most, class Body>
inline void for_token_tiles(int n_tokens, Body&& body, int first = 0) {
  for (; n_tokens - first >= Most; first += Most) body(Count<Most>{}, first);
  if constexpr (Most > 1) {
    if (first < n_tokens) for_token_tiles<Most - 1>(n_tokens, body, first);
  }
}

// out = sums + bias, or out + add_scale · (sums + bias), for the rows that panel `p` has. sums: [n_tokens, 16], of the tokens from first_token on.
inline void store_panel(const MatmulArgs& args, int p, int first_token, int n_tokens, const float* sums) {
  const int n_rows = smaller(kPanelRows, args.weight->out_features - p * kPanelRows);
  const float* bias = args.bias ? args.bias + static_cast<int64_t>(p) * kPanelRows : nullptr;
  float* out = args.out + first_token * args.out_stride + static_cast<int64_t>(p) * kPanelRows;
  const int n_low = smaller(n_rows, kLanes), n_high = n_rows - n_low;
  const F32x8 bias_low = bias ? load_part(bias, n_low) : F32x8::zero();
  const F32x8 bias_high = bias && n_high ? load_part(bias + kLanes, n_high) : F32x8::zero();
  for (int t = 0; t < n_tokens; ++t, sums += kPanelRows, out += args.out_stride) {
    F32x8 low = F32x8::load(sums), high = F32x8::load(sums + kLanes);
    if (bias) {
      low = low + bias_low;
      high = high + bias_high;
    }
    if (args.add_scale != 0) {
      const F32x8 scale = F32x8::set1(args.add_scale);
      low = fma(scale, low, load_part(out, n_low));
      if (n_high) high = fma(scale, high, load_part(out + kLanes, n_high));
    }
    store_part(low, out, n_low);
    if (n_high) store_part(high, out + kLanes, n_high);
  }
}

}  // namespace sala::SALA_ISA
