#include <cmath>
#include <vector>

#include "kernels/error.h"
#include "kernels/reference/reference.h"

namespace sala::reference {

namespace {

// Element `at` of K/V head g, which belongs to row i.
double element(const KvTile& tile, const void* rows, const float* scales, int g, int i, int64_t at) {
  at += g * tile.head_stride;
  if (!scales) return static_cast<const float*>(rows)[at];
  return double{scales[g * tile.scale_stride + i]} * static_cast<const int8_t*>(rows)[at];
}

// Component c of row i of K/V head g.
double key(const KvTile& tile, int g, int i, int c, int head_dim) {
  return element(tile, tile.k, tile.k_scales, g, i, tile.k_turned ? turned_index(i, c, head_dim) : int64_t{i} * head_dim + c);
}
double value(const KvTile& tile, int g, int i, int c, int head_dim) {
  return element(tile, tile.v, tile.v_scales, g, i, int64_t{i} * head_dim + c);
}

}  // namespace

// A plain softmax: all logits of a row, their maximum, the weighted mean.
void sparse_attn(const SparseAttnArgs& args, Stream&) {
  const int d = args.head_dim;
  CHECK(args.n_heads % args.n_kv_heads == 0);
  struct Seen {
    const KvTile* tile;
    int row;
    double logit;
  };
  std::vector<Seen> seen;
  std::vector<double> o(d);
  for (int t = 0; t < args.n_tokens; ++t) {
    for (int h = 0; h < args.n_heads; ++h) {
      const int g = h / (args.n_heads / args.n_kv_heads);
      const float* q = args.q + (int64_t{t} * args.n_heads + h) * d;
      seen.clear();
      double max = -INFINITY;
      const auto see = [&](int index) {
        const KvTile& tile = index < args.n_tiles ? args.tiles[index] : args.own_tiles[index - args.n_tiles];
        for (int i = tile.first_row; i < tile.n_rows; ++i) {
          if (tile.first_position >= 0 && tile.first_position + i > args.first_position + t) break;
          double logit = 0;
          for (int c = 0; c < d; ++c) logit += q[c] * key(tile, g, i, c, d);
          logit *= args.q_scale[t];
          seen.push_back({&tile, i, logit});
          max = std::fmax(max, logit);
        }
      };
      if (args.selected) {
        const int32_t* selected = args.selected + (int64_t{t} * args.n_kv_heads + g) * args.selected_width;
        for (int i = 0; i < args.selected_width && selected[i] >= 0; ++i) see(selected[i]);
      } else {
        for (int i = 0; i < args.n_tiles + args.n_own_tiles; ++i) see(i);
      }

      o.assign(d, 0);
      double sum = 0;
      for (const Seen& s : seen) {
        const double weight = std::exp(s.logit - max);
        sum += weight;
        for (int c = 0; c < d; ++c) o[c] += weight * value(*s.tile, g, s.row, c, d);
      }
      float* out = args.out + (int64_t{t} * args.n_heads + h) * d;
      for (int c = 0; c < d; ++c) out[c] = seen.empty() ? 0 : static_cast<float>(o[c] / sum);
    }
  }
}

}  // namespace sala::reference
