#include "native/context/coarse_basis.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace sala {

namespace {

constexpr int kSamples = 1024;
// Of subspace iteration (Golub & Van Loan, Matrix Computations, 8.2.4). Each makes what is left of a direction outside smaller by the ratio
// of its variance to the least one inside.
constexpr int kRounds = 8;

// Keys of windows at equal distances, [n, d].
std::vector<double> sample(const BlockWindows* windows, int n_blocks, int d) {
  int64_t n_windows = 0;
  for (int b = 0; b < n_blocks; ++b) n_windows += windows[b].n;
  const int64_t stride = std::max<int64_t>(1, (n_windows + kSamples - 1) / kSamples);
  std::vector<double> keys;
  int64_t i = 0;
  for (int b = 0; b < n_blocks; ++b) {
    for (int slot = 0; slot < windows[b].n; ++slot) {
      if (i++ % stride != 0) continue;
      for (int c = 0; c < d; ++c) keys.push_back(double(windows[b].scales[slot]) * windows[b].k[slot * d + c]);
    }
  }
  return keys;
}

double dot(const double* a, const double* b, int n) {
  double sum = 0;
  for (int i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

// Makes the rows of v [n, d] orthonormal, in order (modified Gram–Schmidt); rows that depend on those before become 0.
void orthonormalise(std::vector<double>& v, int n, int d) {
  for (int i = 0; i < n; ++i) {
    double* row = v.data() + size_t(i) * d;
    const double before = std::sqrt(dot(row, row, d));
    for (int j = 0; j < i; ++j) {
      const double* other = v.data() + size_t(j) * d;
      const double share = dot(row, other, d);
      for (int c = 0; c < d; ++c) row[c] -= share * other[c];
    }
    const double norm = std::sqrt(dot(row, row, d));
    const double factor = norm > 1e-10 * before ? 1 / norm : 0;
    for (int c = 0; c < d; ++c) row[c] *= factor;
  }
}

}  // namespace

void coarse_basis(const BlockWindows* windows, int n_blocks, int head_dim, int coarse_dim, float* basis, float* mean) {
  const int d = head_dim;
  std::vector<double> keys = sample(windows, n_blocks, d), center(d), covariance(size_t(d) * d);
  const int n = int(keys.size() / size_t(d));
  for (int i = 0; i < n; ++i) {
    for (int c = 0; c < d; ++c) center[c] += keys[size_t(i) * d + c] / n;
  }
  for (int i = 0; i < n; ++i) {
    double* key = keys.data() + size_t(i) * d;
    for (int c = 0; c < d; ++c) key[c] -= center[c];
    for (int a = 0; a < d; ++a) {
      for (int b = 0; b < d; ++b) covariance[size_t(a) * d + b] += key[a] * key[b];
    }
  }
  // Any start that leans to no direction will do.
  std::vector<double> v(size_t(coarse_dim) * d), next(v.size());
  uint64_t state = 1;
  for (double& x : v) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    x = double(state >> 11) / double(uint64_t(1) << 53) - 0.5;
  }
  for (int round = 0; round < kRounds; ++round) {
    for (int i = 0; i < coarse_dim; ++i) {
      for (int a = 0; a < d; ++a) next[size_t(i) * d + a] = dot(covariance.data() + size_t(a) * d, v.data() + size_t(i) * d, d);
    }
    v.swap(next);
    orthonormalise(v, coarse_dim, d);
  }
  for (int c = 0; c < d; ++c) {
    mean[c] = float(center[c]);
    for (int i = 0; i < coarse_dim; ++i) basis[size_t(c) * coarse_dim + i] = float(v[size_t(i) * d + c]);
  }
}

}  // namespace sala
