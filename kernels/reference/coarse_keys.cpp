#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/reference/reference.h"

namespace sala::reference {

void coarse_keys(const CoarseKeysArgs& args, Stream&) {
  const int d = args.head_dim, n_dims = args.coarse_dim;
  const int64_t n_slots = n_coarse_slots(args.n_blocks);
  std::vector<float> x(n_dims);
  std::fill_n(args.keys, args.n_kv_heads * n_slots * n_dims, uint8_t(kCoarseZero));
  std::fill_n(args.scales, args.n_kv_heads * n_slots, NAN);
  for (int g = 0; g < args.n_kv_heads; ++g) {
    for (int b = 0; b < args.n_blocks; ++b) {
      const BlockWindows& windows = args.windows[int64_t{g} * args.n_blocks + b];
      for (int slot = 0; slot < windows.n; ++slot) {
        float largest = 0;
        for (int i = 0; i < n_dims; ++i) {
          double sum = 0;
          for (int c = 0; c < d; ++c) {
            const double beyond = double{windows.scales[slot]} * windows.k[slot * d + c] - args.mean[g * d + c];
            sum += args.basis[(int64_t{g} * d + c) * n_dims + i] * beyond;
          }
          x[i] = float(sum);
          largest = std::max(largest, std::fabs(x[i]));
        }
        const float scale = largest < 1e-30f ? 0 : largest / 15;
        args.scales[g * n_slots + coarse_scale_index(b, slot)] = scale;
        for (int i = 0; i < n_dims; ++i) {
          const float code = scale > 0 ? std::nearbyint(x[i] / scale) : 0;
          args.keys[g * n_slots * n_dims + coarse_key_index(b, slot, i, n_dims)] = uint8_t(kCoarseZero + int(code));
        }
      }
    }
  }
}

}  // namespace sala::reference
