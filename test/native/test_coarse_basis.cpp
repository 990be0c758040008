// The basis of coarse keys, against keys whose directions are known.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

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
