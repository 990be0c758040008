#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/error.h"
#include "kernels/reference/reference.h"

namespace sala::reference {

void block_scores(const BlockScoresArgs& args, Stream&) {
  const int d = args.head_dim;
  const int n_per_group = args.n_heads / args.n_kv_heads;
  CHECK(args.n_heads % args.n_kv_heads == 0);
  std::vector<double> z1(args.n_k1), z2(args.n_k2), a(args.n_k1);
  for (int t = 0; t < args.n_tokens; ++t) {
    const int seen_k1 = args.visible_k1 ? args.visible_k1[t] : args.n_k1;
    const int seen_k2 = args.visible_k2 ? args.visible_k2[t] : args.n_k2;
    for (int g = 0; g < args.n_kv_heads; ++g) {
      a.assign(args.n_k1, 0);
      for (int h = g * n_per_group; h < (g + 1) * n_per_group; ++h) {
        const float* q = args.q + (int64_t{t} * args.n_heads + h) * d;
        const auto logit = [&](const float* keys, int j) {
          double dot = 0;
          for (int c = 0; c < d; ++c) dot += double{q[c]} * keys[turned_index(j, c, d)];
          return args.q_scale[t] * dot;
        };
        for (int j = 0; j < seen_k1; ++j) z1[j] = logit(args.k1 + g * args.k1_stride, j);
        if (args.k2) {
          for (int j = 0; j < seen_k2; ++j) z2[j] = logit(args.k2 + g * args.k2_stride, j);
        }
        const std::vector<double>& z = args.k2 ? z2 : z1;
        const int seen = args.k2 ? seen_k2 : seen_k1;
        double max = -INFINITY, sum = 0;
        for (int j = 0; j < seen; ++j) max = std::max(max, z[j]);
        for (int j = 0; j < seen; ++j) sum += std::exp(z[j] - max);
        if (seen == 0) continue;  // nothing to normalise by: P is 0
        for (int j = 0; j < seen_k1; ++j) a[j] += std::exp(z1[j] - max) / sum;
      }
      float* scores = args.scores + (int64_t{t} * args.n_kv_heads + g) * args.n_blocks;
      for (int b = 0; b < args.n_blocks; ++b) {
        double score = -INFINITY;
        // Invisible windows count as 0, which is the least that a visible one can have.
        for (int j = args.block_begin[b]; j < args.block_end[b]; ++j) score = std::max(score, j < seen_k1 ? a[j] : 0.0);
        scores[b] = static_cast<float>(score);
      }
    }
  }
}

}  // namespace sala::reference
