// Exact selection of the k best of n scores: the bits of the k-th best one, highest first, by counting what reaches them, then one pass
// that collects. Neither branches on what the scores are, and counting takes a vector at a time.
#pragma once

#include <cstdint>
#include <cstring>

namespace sala::SALA_ISA {

// Integers that order as the scores do. −0 is 0.
inline int32_t ordered_bits(float score) {
  int32_t bits;
  std::memcpy(&bits, &score, 4);
  return bits < 0 ? INT32_MIN - bits : bits;
}

inline int count_from(int32_t bound, const int32_t* keys, int n) {
  int count = 0;
  for (int i = 0; i < n; ++i) count += keys[i] >= bound;
  return count;
}

// selected [k]: ascending indices, −1 padded; at ties the lower index. keys [n]: scratch.
inline void select_best(const float* scores, int n, int k, int32_t* keys, int32_t* selected) {
  const int n_best = n < k ? n : k;
  for (int i = n_best; i < k; ++i) selected[i] = -1;
  for (int i = 0; i < n; ++i) keys[i] = ordered_bits(scores[i]);
  // n_best or more keys reach `bound`, whose bits below those tried are 0.
  int32_t bound = INT32_MIN;
  int n_reached = n;
  for (uint32_t bit = 1u << 31; bit != 0 && n_reached != n_best; bit >>= 1) {
    const int32_t higher = static_cast<int32_t>(static_cast<uint32_t>(bound) + bit);
    const int count = count_from(higher, keys, n);
    if (count < n_best) continue;
    bound = higher;
    n_reached = count;
  }
  // Where too many reach it, it is the last one's key, and the lowest of its equals are taken.
  int n_equals = n_best;
  if (n_reached != n_best) n_equals -= count_from(bound + 1, keys, n);
  for (int i = 0, n_selected = 0; n_selected < n_best; ++i) {
    const bool equals = keys[i] == bound;
    selected[n_selected] = i;
    n_selected += (keys[i] > bound) | (equals & (n_equals > 0));
    n_equals -= equals;
  }
}

}  // namespace sala::SALA_ISA
