// The basis of coarse keys, against keys whose directions are known, and what is selected by it.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "kernels/backend.h"
#include "native/context/coarse_basis.h"

using namespace sala;

TEST_CASE("coarse basis: spans what keys differ in most, and nothing where they do not differ") {
  constexpr int kDim = 32, kDims = 16, kBlocks = 700;
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<int8_t> keys(kBlocks * kBlockSlots * kDim);
  const std::vector<float> scales(kBlocks * kBlockSlots, 0.02f);
  std::vector<BlockWindows> windows;
  for (int b = 0; b < kBlocks; ++b) windows.push_back({keys.data() + b * kBlockSlots * kDim, scales.data() + b * kBlockSlots, int8_t(1 + b % 4), b > 0});
  for (int n_varying : {kDim, 5, 0}) {
    CAPTURE(n_varying);
    // Component c varies less than the one before; all of them have a mean of their own. Every other one is swapped with one far off.
    const auto place = [](int c) { return c % 2 ? kDim - c : c; };
    for (size_t i = 0; i < keys.size(); ++i) {
      const int c = int(i % kDim);
      const float spread = c < n_varying ? 30 * std::pow(0.8f, float(c)) : 0;
      keys[i - c + place(c)] = int8_t(std::clamp(std::nearbyint(20 + 0.5f * c + spread * normal(random)), -127.0f, 127.0f));
    }
    std::vector<float> basis(kDim * kDims), mean(kDim);
    coarse_basis(windows.data(), kBlocks, kDim, kDims, basis.data(), mean.data());

    for (int i = 0; i < kDims; ++i) {
      for (int j = 0; j <= i; ++j) {
        double dot = 0;
        for (int c = 0; c < kDim; ++c) dot += double(basis[c * kDims + i]) * basis[c * kDims + j];
        const bool is_none = i >= std::max(n_varying, 0) && i == j && dot == 0;
        if (!is_none) CHECK(dot == doctest::Approx(i == j ? 1 : 0).epsilon(1e-4));
      }
    }
    // What is outside of the basis, against the best that any basis of as many columns leaves: the components that vary least.
    double outside = 0, best = 0, all = 0;
    int n = 0;
    for (const BlockWindows& of : windows) {
      for (int slot = 0; slot < of.n; ++slot, ++n) {
        std::vector<double> x(kDim);
        for (int c = 0; c < kDim; ++c) x[c] = double(of.scales[slot]) * of.k[slot * kDim + c] - mean[c];
        for (int c = 0; c < kDim; ++c) {
          all += x[place(c)] * x[place(c)];
          if (c >= kDims) best += x[place(c)] * x[place(c)];
        }
        for (int i = 0; i < kDims; ++i) {
          double share = 0;
          for (int c = 0; c < kDim; ++c) share += basis[c * kDims + i] * x[c];
          for (int c = 0; c < kDim; ++c) x[c] -= share * basis[c * kDims + i];
        }
        for (double rest : x) outside += rest * rest;
      }
    }
    CHECK(n > 1024);  // so the basis is of a sample
    CHECK(outside <= 1.15 * best + 1e-6 * all + 1e-9);
  }
}

TEST_CASE("coarse basis: of what all windows' scores would select, at most 3 % of the blocks differ") {
  // Keys differ less and less from component to component, as those of the embedded model do in their own directions: 97 % lies in half.
  constexpr int kDim = 64, kDims = 32, kBlocks = 3000, kHeads = 7, kTokens = 6, kSelected = 16;
  std::mt19937 random(2);
  std::normal_distribution<float> normal;
  std::vector<int8_t> keys(kBlocks * kBlockSlots * kDim);
  for (size_t i = 0; i < keys.size(); ++i) {
    keys[i] = int8_t(std::clamp(std::nearbyint(60 * std::pow(0.947f, float(i % kDim)) * normal(random)), -127.0f, 127.0f));
  }
  const std::vector<float> scales(kBlocks * kBlockSlots, 0.02f);
  std::vector<BlockWindows> windows;
  for (int b = 0; b < kBlocks; ++b) windows.push_back({keys.data() + b * kBlockSlots * kDim, scales.data() + b * kBlockSlots, kBlockSlots, b % 8 > 0});
  std::vector<float> q(kTokens * kHeads * kDim), basis(kDim * kDims), mean(kDim), q_scale(kTokens, 0.125f);
  for (float& x : q) x = 2 * normal(random);
  coarse_basis(windows.data(), kBlocks, kDim, kDims, basis.data(), mean.data());
  Stream stream(1);
  const Ops& ops = *backends().back();
  Aligned<uint8_t> coarse_keys(n_coarse_slots(kBlocks) * kDims);
  std::vector<float> coarse_scales(n_coarse_slots(kBlocks)), memory(select_blocks_memory(kTokens, kHeads, kBlocks));
  const CoarseKeysArgs coarse{windows.data(), basis.data(), mean.data(), coarse_keys.data(), coarse_scales.data(), kBlocks, 1, kDim, kDims};
  ops.coarse_keys(coarse, stream);
  std::vector<int32_t> selected(kTokens * kSelected);
  ops.select_blocks({.q = q.data(), .q_scale = q_scale.data(), .windows = windows.data(), .coarse = coarse, .n_blocks = kBlocks,
                     .selected = selected.data(), .k = kSelected, .memory = memory.data(), .n_tokens = kTokens, .n_heads = kHeads,
                     .n_kv_heads = 1, .head_dim = kDim},
                    stream);
  REQUIRE(n_select_candidates(kBlocks, kSelected) == 192);

  int n_different = 0;
  for (int t = 0; t < kTokens; ++t) {
    std::vector<double> a(kBlocks * kBlockSlots, 0.0), z(a.size());
    for (int h = 0; h < kHeads; ++h) {
      double max = -INFINITY, sum = 0;
      for (size_t j = 0; j < z.size(); ++j) {
        z[j] = 0;
        for (int c = 0; c < kDim; ++c) z[j] += 0.125 * q[(t * kHeads + h) * kDim + c] * 0.02 * keys[j * kDim + c];
        max = std::max(max, z[j]);
      }
      for (double x : z) sum += std::exp(x - max);
      for (size_t j = 0; j < z.size(); ++j) a[j] += std::exp(z[j] - max) / sum;
    }
    std::vector<std::pair<double, int32_t>> best;
    for (int b = 0; b < kBlocks; ++b) {
      const auto first = a.begin() + b * kBlockSlots - (windows[b].continued ? 1 : 0);
      best.push_back({-*std::max_element(first, a.begin() + (b + 1) * kBlockSlots), b});
    }
    std::sort(best.begin(), best.end());
    const auto mine = selected.begin() + t * kSelected;
    for (int i = 0; i < kSelected; ++i) n_different += std::find(mine, mine + kSelected, best[i].second) == mine + kSelected;
  }
  CAPTURE(n_different);
  CHECK(n_different * 100 <= 3 * kTokens * kSelected);
}
