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

// selected [k]: ascending indices, −1 padded; at ties the lower index. keys [n]: scratch.
inline void select_best(const float* scores, int n, int k, uint32_t* keys, int32_t* selected) {
  int n_selected = 0;
  if (n <= k) {
    for (int b = 0; b < n; ++b) selected[n_selected++] = b;
  } else if (k > 0) {
    for (int b = 0; b < n; ++b) keys[b] = ordered_bits(scores[b]);
    uint32_t threshold = 0;
    int n_left = k;  // members among the keys that share the threshold's bytes so far
    for (int shift = 24; shift >= 0; shift -= 8) {
      int32_t counts[256] = {};
      const uint32_t fixed = shift == 24 ? 0 : ~uint32_t{0} << (shift + 8);
      for (int b = 0; b < n; ++b) {
        if ((keys[b] & fixed) == threshold) ++counts[keys[b] >> shift & 0xFF];
      }
      int byte = 255;
      for (; counts[byte] < n_left; --byte) n_left -= counts[byte];
      threshold |= static_cast<uint32_t>(byte) << shift;
    }
    for (int b = 0; b < n; ++b) {
      if (keys[b] > threshold || (keys[b] == threshold && n_left-- > 0)) selected[n_selected++] = b;
    }
  }
  while (n_selected < k) selected[n_selected++] = -1;
}

}  // namespace sala::SALA_ISA
