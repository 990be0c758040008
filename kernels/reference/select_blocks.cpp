#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/error.h"
#include "kernels/reference/reference.h"

namespace sala::reference {

namespace {

// The indices of the n best scores, ascending; at ties the lower index.
std::vector<int32_t> best_of(const std::vector<double>& scores, size_t n) {
  std::vector<int32_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t x, int32_t y) { return scores[x] > scores[y]; });
  order.resize(std::min(n, order.size()));
  std::sort(order.begin(), order.end());
  return order;
}

}  // namespace

void select_blocks(const SelectBlocksArgs& args, Stream&) {
  const int d = args.head_dim, n_per_group = args.n_heads / args.n_kv_heads, n_blocks = args.n_blocks, n_dims = args.coarse.coarse_dim;
  CHECK(args.n_heads % args.n_kv_heads == 0);
  const int n_candidates = n_select_candidates(n_blocks, args.k);
  const bool is_coarse = n_candidates < n_blocks;
  constexpr int kReach = kBlockSlots + 1;  // windows of a block, the first one being that of the block before
  const auto rounded = [](const std::vector<double>& x, int most, float& s) {
    float largest = 0;
    for (double value : x) largest = std::max(largest, std::fabs(float(value)));
    s = largest < 1e-30f ? 1 : largest / float(most);
    std::vector<int64_t> codes;
    for (double value : x) codes.push_back(int64_t(std::nearbyint(float(value) / s)));
    return codes;
  };
  std::vector<double> u(n_blocks), scores;
  for (int t = 0; t < args.n_tokens; ++t) {
    for (int g = 0; g < args.n_kv_heads; ++g) {
      const BlockWindows* windows = args.windows + int64_t{g} * n_blocks;
      // z and y [n_per_group, n_blocks, kReach]; −∞ where there is no window.
      std::vector<double> z(size_t(n_per_group) * n_blocks * kReach, -INFINITY), y = z;
      const auto at = [&](int h, int b, int j) { return (size_t(h) * n_blocks + b) * kReach + j + 1; };
      for (int h = 0; h < n_per_group; ++h) {
        const float* q = args.q + (int64_t{t} * args.n_heads + g * n_per_group + h) * d;
        float s, coarse_s = 0;
        const std::vector<int64_t> codes = rounded(std::vector<double>(q, q + d), 32512, s);
        std::vector<int64_t> coarse_codes;
        double of_mean = 0;
        if (is_coarse) {
          std::vector<double> x(n_dims);
          for (int c = 0; c < d; ++c) {
            of_mean += double{args.q_scale[t]} * q[c] * args.coarse.mean[g * d + c];
            for (int i = 0; i < n_dims; ++i) x[i] += double{q[c]} * args.coarse.basis[(int64_t{g} * d + c) * n_dims + i];
          }
          coarse_codes = rounded(x, 63, coarse_s);
        }
        for (int b = 0; b < n_blocks; ++b) {
          for (int j = windows[b].continued ? -1 : 0; j < windows[b].n; ++j) {
            int64_t dot = 0;
            for (int c = 0; c < d; ++c) dot += codes[c] * windows[b].k[int64_t{j} * d + c];
            z[at(h, b, j)] = double{args.q_scale[t] * s} * windows[b].scales[j] * double(dot);
            if (!is_coarse) continue;
            const int64_t block = j < 0 ? b - 1 : b, slot = j < 0 ? kBlockSlots - 1 : j, n_slots = n_coarse_slots(n_blocks);
            dot = 0;
            for (int i = 0; i < n_dims; ++i) {
              dot += coarse_codes[i] * (args.coarse.keys[g * n_slots * n_dims + coarse_key_index(block, slot, i, n_dims)] - kCoarseZero);
            }
            y[at(h, b, j)] = double{args.q_scale[t] * coarse_s} * args.coarse.scales[g * n_slots + coarse_scale_index(block, slot)] * double(dot) + of_mean;
          }
        }
      }
      // Σ exp(x − max) over blocks' own windows.
      const auto mass = [&](const std::vector<double>& x, int h, int b, double max) {
        double sum = 0;
        for (int j = 0; j < windows[b].n; ++j) sum += std::exp(x[at(h, b, j)] - max);
        return sum;
      };
      const auto largest = [&](const std::vector<double>& x, int h, int b) {
        return *std::max_element(x.begin() + at(h, b, -1), x.begin() + at(h, b, kBlockSlots));
      };

      u.assign(n_blocks, 0);
      for (int h = 0; is_coarse && h < n_per_group; ++h) {
        double max = -INFINITY, sum = 0;
        for (int b = 0; b < n_blocks; ++b) max = std::max(max, largest(y, h, b));
        for (int b = 0; b < n_blocks; ++b) sum += mass(y, h, b, max);
        for (int b = 0; b < n_blocks; ++b) {
          const double before = b > 0 ? y[at(h, b - 1, kBlockSlots - 1)] : -INFINITY;
          u[b] += std::exp(std::max(largest(y, h, b), before) - max) / sum;
        }
      }
      const std::vector<int32_t> candidates = best_of(u, n_candidates);
      std::vector<bool> is_candidate(n_blocks, false);
      for (int32_t b : candidates) is_candidate[b] = true;

      std::vector<double> a(size_t(n_blocks) * kReach, 0.0);
      for (int h = 0; h < n_per_group; ++h) {
        double max = -INFINITY, sum = 0;
        for (int b = 0; b < n_blocks; ++b) max = std::max(max, largest(is_candidate[b] ? z : y, h, b));
        for (int b = 0; b < n_blocks; ++b) sum += mass(is_candidate[b] ? z : y, h, b, max);
        for (int32_t b : candidates) {
          for (int j = -1; j < kBlockSlots; ++j) a[at(0, b, j)] += std::exp(z[at(h, b, j)] - max) / sum;
        }
      }
      scores.clear();
      for (int32_t b : candidates) scores.push_back(float(*std::max_element(a.begin() + at(0, b, -1), a.begin() + at(0, b, kBlockSlots))));
      int32_t* selected = args.selected + (int64_t{t} * args.n_kv_heads + g) * args.k;
      std::fill_n(selected, args.k, -1);
      for (int32_t i : best_of(scores, args.k)) *selected++ = candidates[i];
    }
  }
}

}  // namespace sala::reference
