// Exact selection by radix (most significant byte first): the bits of the k-th best score, then one pass that collects
// what is above it and as many equals as are left, from the lowest index.
#include "kernels/cpu/cpu.h"
#include "kernels/error.h"

#include <cstring>

namespace sala::SALA_ISA {

namespace {

// Integers that order as the scores do. −0 is 0.
uint32_t ordered_bits(float score) {
  uint32_t bits;
  std::memcpy(&bits, &score, 4);
  if (bits == 0x80000000u) bits = 0;
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

void select_row(const float* scores, int n_valid, int k, int32_t* selected) {
  int n_selected = 0;
  if (n_valid <= k) {
    for (int b = 0; b < n_valid; ++b) selected[n_selected++] = b;
  } else if (k > 0) {
    uint32_t* keys = static_cast<uint32_t*>(Stream::scratch(sizeof(uint32_t) * n_valid));
    for (int b = 0; b < n_valid; ++b) keys[b] = ordered_bits(scores[b]);
    uint32_t threshold = 0;
    int n_left = k;  // members among the keys that share the threshold's bytes so far
    for (int shift = 24; shift >= 0; shift -= 8) {
      int32_t counts[256] = {};
      const uint32_t fixed = shift == 24 ? 0 : ~uint32_t{0} << (shift + 8);
      for (int b = 0; b < n_valid; ++b) {
        if ((keys[b] & fixed) == threshold) ++counts[keys[b] >> shift & 0xFF];
      }
      int byte = 255;
      for (; counts[byte] < n_left; --byte) n_left -= counts[byte];
      threshold |= static_cast<uint32_t>(byte) << shift;
    }
    for (int b = 0; b < n_valid; ++b) {
      if (keys[b] > threshold || (keys[b] == threshold && n_left-- > 0)) selected[n_selected++] = b;
    }
  }
  while (n_selected < k) selected[n_selected++] = -1;
}

}  // namespace

void topk_blocks(const TopkBlocksArgs& args, Stream& stream) {
  const int grain = 1 + 2048 / (args.n_blocks + 1);
  stream.parallel_for(args.n_rows, grain, [&](int first_row, int last_row) {
    for (int r = first_row; r < last_row; ++r) {
      const int n_valid = args.n_valid ? args.n_valid[r] : args.n_blocks;
      CHECK(n_valid >= 0 && n_valid <= args.n_blocks);
      select_row(args.scores + int64_t{r} * args.n_blocks, n_valid, args.k, args.selected + int64_t{r} * args.k);
    }
  });
}

}  // namespace sala::SALA_ISA
