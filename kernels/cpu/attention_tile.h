// What the attention operators do with a tile of 64 keys: turn it so that lanes are keys, and take its logits into a
// running softmax.
#pragma once

#include "kernels/cpu/simd.h"
#include "kernels/ops.h"

namespace sala::SALA_ISA {

// Keys or values in a tile; the row length of transposed tiles and of their logits.
constexpr int kTile = kKvTile;
static_assert(kTile == kLightningChunk);

// turned[c, i] = rows[i, c], 64 floats a row. Keys from n_rows (1 … 64) to the next multiple of 8 become 0, later ones
// are left as they were. head_dim: a multiple of 8.
template <class T>
inline void transpose_tile(const T* rows, int n_rows, int head_dim, float* turned) {
  for (int i = 0; i < n_rows; i += kLanes) {
    const int n = n_rows - i < kLanes ? n_rows - i : kLanes;
    for (int c = 0; c < head_dim; c += kLanes) {
      F32x8 block[kLanes];
      for (int r = 0; r < kLanes; ++r) {
        block[r] = r < n ? load_floats(rows + int64_t{i + r} * head_dim + c) : F32x8::zero();
      }
      transpose(block);
      for (int r = 0; r < kLanes; ++r) block[r].store(turned + (c + r) * kTile + i);
    }
  }
}

// Running maximum and sum of exp(logit − max) (Milakov & Gimelshein 2018).
struct RunningSoftmax {
  float max = -__builtin_inff();
  float sum = 0;
};

// Takes logits[begin … end) of a tile in and replaces them by exp(logit − new maximum); others of the touched vectors
// become 0. Returns what all earlier weights are to be multiplied by. begin < end.
inline float take_logits(float* logits, int begin, int end, RunningSoftmax& softmax) {
  const int first = begin / kLanes * kLanes, last = (end + kLanes - 1) / kLanes * kLanes;
  for (int i = first; i < begin; ++i) logits[i] = -__builtin_inff();
  for (int i = end; i < last; ++i) logits[i] = -__builtin_inff();
  F32x8 maxima = F32x8::set1(softmax.max);
  for (int i = first; i < last; i += kLanes) maxima = max(F32x8::load(logits + i), maxima);
  const float new_max = max_lane(maxima);
  F32x8 sums = F32x8::zero();
  for (int i = first; i < last; i += kLanes) {
    const F32x8 weights = exp(F32x8::load(logits + i) - F32x8::set1(new_max));
    weights.store(logits + i);
    sums = sums + weights;
  }
  const float factor = new_max == softmax.max ? 1.0f : exp(softmax.max - new_max);
  softmax.sum = fma(softmax.sum, factor, sum(sums));
  softmax.max = new_max;
  return factor;
}

}  // namespace sala::SALA_ISA
