// Exact selection of the k best of n scores by radix (most significant byte first): the bits of the k-th best score, then one pass
// that collects what is above it and as many equals as are left, from the lowest index.
#pragma once

#include <cstdint>
#include <cstring>

namespace sala::SALA_ISA {

// Integers that order as the scores do. −0 is 0.
inline uint32_t ordered_bits(float score) {
  uint32_t bits;
  std::memcpy(&bits, &score, 4);
  if (bits == 0x80000000u) bits = 0;
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// selected [k]: ascending indices, −1 padded; at ties the lower index. keys [2n]: scratch.
inline void select_best(const float* scores, int n, int k, uint32_t* keys, int32_t* selected) {
  int n_selected = 0;
  if (n <= k) {
    for (int b = 0; b < n; ++b) selected[n_selected++] = b;
  } else if (k > 0) {
    int32_t counts[256] = {};
    for (int b = 0; b < n; ++b) {
      keys[b] = ordered_bits(scores[b]);
      ++counts[keys[b] >> 24];
    }
    // Those that share the threshold's bytes so far move to the front of `left`.
    uint32_t *left = keys + n, threshold = 0;
    const uint32_t* from = keys;
    int n_left = n, n_wanted = k;
    for (int shift = 24;; shift -= 8) {
      int byte = 255;
      for (; counts[byte] < n_wanted; --byte) n_wanted -= counts[byte];
      threshold |= static_cast<uint32_t>(byte) << shift;
      if (shift == 0) break;
      int n_next = 0;
      for (int i = 0; i < n_left; ++i) {
        const uint32_t key = from[i];
        left[n_next] = key;
        n_next += key >> shift == threshold >> shift;
      }
      from = left;
      n_left = n_next;
      std::memset(counts, 0, sizeof counts);
      for (int i = 0; i < n_left; ++i) ++counts[left[i] >> (shift - 8) & 0xFF];
    }
    for (int b = 0; b < n; ++b) {
      if (keys[b] > threshold || (keys[b] == threshold && n_wanted-- > 0)) selected[n_selected++] = b;
    }
  }
  while (n_selected < k) selected[n_selected++] = -1;
}

}  // namespace sala::SALA_ISA
