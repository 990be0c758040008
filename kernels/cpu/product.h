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
  const float* ahead = nullptr;  // [n_ahead]: what is read next, fetched into the cache on the way
  int64_t n_ahead = 0;
};

// What is left to fetch ahead, a cache line at each step of an inner loop.
struct Ahead {
  static constexpr int kLine = 16;  // floats
  const float* next;
  int64_t n_left;

  // Where a loop of n steps is to begin, null if there is less left than it would fetch.
  const float* take(int n) {
    if (n_left < int64_t{n} * kLine) return nullptr;
    n_left -= int64_t{n} * kLine;
    next += int64_t{n} * kLine;
    return next - int64_t{n} * kLine;
  }
};

// R rows by J vectors, sums in registers.
template <bool kAdd, bool kAhead, int R, int J>
inline void product_tile(const ProductArgs& args, int row, int column, const float* ahead) {
  const float* a = args.a + row * args.a_stride;
  const float* b = args.b + column;
  float* c = args.c + row * args.c_stride + column;
  const int n_inner = args.n_inner + row * args.step;
  F32x8 sums[R][J];
  for (int r = 0; r < R; ++r) {
    for (int j = 0; j < J; ++j) sums[r][j] = kAdd ? F32x8::load(c + r * args.c_stride + j * kLanes) : F32x8::zero();
  }
  for (int i = 0; i < n_inner; ++i) {
    if constexpr (kAhead) __builtin_prefetch(ahead + int64_t{i} * Ahead::kLine, 0, 2);
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
inline void product_rows(const ProductArgs& args, int row, Ahead& ahead, int column = 0) {
  for (; column + J * kLanes <= args.n_columns; column += J * kLanes) {
    if (const float* lines = ahead.take(args.n_inner)) product_tile<kAdd, true, R, J>(args, row, column, lines);
    else product_tile<kAdd, false, R, J>(args, row, column, nullptr);
  }
  if constexpr (J > 1) product_rows<kAdd, R, J / 2>(args, row, ahead, column);
}

// Rows go in blocks of at most 6, as equal as may be (7 = 4 + 3): 6 × 2 sums, 2 vectors of B and a factor fit 16
// registers, and no block is so thin that it waits for its own sums.
template <bool kAdd>
inline void product(const ProductArgs& args) {
  const int n_blocks = (args.n_rows + 5) / 6;
  Ahead ahead{args.ahead, args.n_ahead};
  for (int block = 0, row = 0; block < n_blocks; ++block) {
    const int n = (args.n_rows - row + n_blocks - block - 1) / (n_blocks - block);
    switch (n) {
      case 1: product_rows<kAdd, 1, 8>(args, row, ahead); break;
      case 2: product_rows<kAdd, 2, 4>(args, row, ahead); break;
      case 3: product_rows<kAdd, 3, 4>(args, row, ahead); break;
      case 4: product_rows<kAdd, 4, 2>(args, row, ahead); break;
      case 5: product_rows<kAdd, 5, 2>(args, row, ahead); break;
      default: product_rows<kAdd, 6, 2>(args, row, ahead); break;
    }
    row += n;
  }
}

}  // namespace sala::SALA_ISA
