#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/error.h"
#include "kernels/reference/reference.h"

namespace sala::reference {

void select_blocks(const SelectBlocksArgs& args, Stream&) {
  const int d = args.head_dim, n_per_group = args.n_heads / args.n_kv_heads;
  CHECK(args.n_heads % args.n_kv_heads == 0);
  const int64_t n_slots = n_block_slots(args.n_blocks);
  std::vector<double> z(size_t(args.n_blocks) * kBlockSlots), a(z.size());
  std::vector<float> scores(args.n_blocks);
  std::vector<int32_t> order(args.n_blocks);
  for (int t = 0; t < args.n_tokens; ++t) {
    for (int g = 0; g < args.n_kv_heads; ++g) {
      const int8_t* keys = args.keys + g * n_slots * d;
      const float* scales = args.scales + g * n_slots;
      const auto has_window = [&](int b, int i) { return !std::isnan(scales[block_scale_index(b, i)]); };
      a.assign(a.size(), 0);
      for (int h = g * n_per_group; h < (g + 1) * n_per_group; ++h) {
        const float* q = args.q + (int64_t{t} * args.n_heads + h) * d;
        float largest = 0;
        for (int c = 0; c < d; ++c) largest = std::max(largest, std::fabs(q[c]));
        const float s = largest < 1e-30f ? 1 : largest / 32512;
        double max = -INFINITY, sum = 0;
        for (int b = 0; b < args.n_blocks; ++b) {
          for (int i = 0; i < kBlockSlots; ++i) {
            if (!has_window(b, i)) continue;
            int64_t dot = 0;
            for (int c = 0; c < d; ++c) dot += int64_t(std::nearbyint(q[c] / s)) * keys[block_key_index(b, i, c, d)];
            z[b * kBlockSlots + i] = double{args.q_scale[t]} * s * scales[block_scale_index(b, i)] * double(dot);
            max = std::max(max, z[b * kBlockSlots + i]);
          }
        }
        for (int b = 0; b < args.n_blocks; ++b) {
          for (int i = 0; i < kBlockSlots; ++i) sum += has_window(b, i) ? std::exp(z[b * kBlockSlots + i] - max) : 0;
        }
        for (int b = 0; b < args.n_blocks; ++b) {
          for (int i = 0; i < kBlockSlots; ++i) {
            if (has_window(b, i)) a[b * kBlockSlots + i] += std::exp(z[b * kBlockSlots + i] - max) / sum;
          }
        }
      }
      for (int b = 0; b < args.n_blocks; ++b) {
        double score = args.continued[b] ? a[b * kBlockSlots - 1] : 0;
        for (int i = 0; i < kBlockSlots; ++i) score = std::max(score, a[b * kBlockSlots + i]);
        scores[b] = static_cast<float>(score);
      }
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(), [&](int32_t x, int32_t y) { return scores[x] > scores[y]; });
      const int n_selected = std::min(args.k, args.n_blocks);
      std::sort(order.begin(), order.begin() + n_selected);
      int32_t* selected = args.selected + (int64_t{t} * args.n_kv_heads + g) * args.k;
      std::copy_n(order.begin(), n_selected, selected);
      std::fill(selected + n_selected, selected + args.k, -1);
    }
  }
}

}  // namespace sala::reference
