// Small fp32 matrix products for the attention operators: C = A · B, or C += A · B, with B some 64 × 64.
// Every element is one chain of FMAs over ascending i, whatever tile it falls into: an element's bits do not depend on
// the number of rows, and a chain may be broken in two calls.
#pragma once

#include "kernels/cpu/simd.h"

namespace sala::SALA_ISA {

struct ProductArgs {
  const float* a;  // [n_rows, n_inner]
  int64_t a_stride;
  const float* b;  // [n_inner, n_columns]
  int64_t b_stride;
  float* c;        // [n_rows, n_columns]
  int64_t c_stride;
  int n_rows, n_inner;
  int n_columns;   // a multiple of 8
  int step = 0;    // 1: row r sums n_inner + r products (a lower triangle); 0: all rows the same
};

// R rows by J vectors, sums in registers.
template <bool kAdd, int R, int J>
inline void product_tile(const ProductArgs& args, int row, int column) {
  const float* a = args.a + row * args.a_stride;
  const float* b = args.b + column;
  float* c = args.c + row * args.c_stride + column;
  const int n_inner = args.n_inner + row * args.step;
  F32x8 sums[R][J];
  for (int r = 0; r < R; ++r) {
    for (int j = 0; j < J; ++j) sums[r][j] = kAdd ? F32x8::load(c + r * args.c_stride + j * kLanes) : F32x8::zero();
  }
  for (int i = 0; i < n_inner; ++i) {
    F32x8 b_row[J];
    for (int j = 0; j < J; ++j) b_row[j] = F32x8::load(b + i * args.b_stride + j * kLanes);
    for (int r = 0; r < R; ++r) {
      const F32x8 factor = F32x8::set1(a[r * args.a_stride + i]);
      for (int j = 0; j < J; ++j) sums[r][j] = fma(factor, b_row[j], sums[r][j]);
    }
  }
  if (args.step) {
    for (int r = 1; r < R; ++r) {
      for (int i = n_inner; i < n_inner + r; ++i) {
        const F32x8 factor = F32x8::set1(a[r * args.a_stride + i]);
        for (int j = 0; j < J; ++j) {
          sums[r][j] = fma(factor, F32x8::load(b + i * args.b_stride + j * kLanes), sums[r][j]);
        }
      }
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int j = 0; j < J; ++j) sums[r][j].store(c + r * args.c_stride + j * kLanes);
  }
}

template <bool kAdd, int R, int J>
inline void product_rows(const ProductArgs& args, int row, int column = 0) {
  for (; column + J * kLanes <= args.n_columns; column += J * kLanes) product_tile<kAdd, R, J>(args, row, column);
  if constexpr (J > 1) product_rows<kAdd, R, J / 2>(args, row, column);
}

// Rows go in blocks of at most 6, as equal as may be (7 = 4 + 3): 6 × 2 sums, 2 vectors of B and a factor fit 16
// registers, and no block is so thin that it waits for its own sums.
template <bool kAdd>
inline void product(const ProductArgs& args) {
  const int n_blocks = (args.n_rows + 5) / 6;
  for (int block = 0, row = 0; block < n_blocks; ++block) {
    const int n = (args.n_rows - row + n_blocks - block - 1) / (n_blocks - block);
    switch (n) {
      case 1: product_rows<kAdd, 1, 8>(args, row); break;
      case 2: product_rows<kAdd, 2, 4>(args, row); break;
      case 3: product_rows<kAdd, 3, 4>(args, row); break;
      case 4: product_rows<kAdd, 4, 2>(args, row); break;
      case 5: product_rows<kAdd, 5, 2>(args, row); break;
      default: product_rows<kAdd, 6, 2>(args, row); break;
    }
    row += n;
  }
}

}  // namespace sala::SALA_ISA
