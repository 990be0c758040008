// What the operator tests share: seeded numbers, poisoned outputs, and the comparison that holds for every operator.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "kernels/backend.h"

namespace sala {

using Floats = std::vector<float>;

// SplitMix64 (Steele et al. 2014).
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t bits() {
    uint64_t z = (state_ += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }
  int below(int n) { return static_cast<int>(bits() % static_cast<uint64_t>(n)); }
  // In (−1, 1).
  float number() { return static_cast<float>(static_cast<double>(bits() >> 11) * 0x1p-52 - 1); }
  Floats numbers(size_t n, float scale = 1) {
    Floats x(n);
    for (float& v : x) v = scale * number();
    return x;
  }

 private:
  uint64_t state_;
};

inline Floats poisoned(size_t n) { return Floats(n, std::numeric_limits<float>::quiet_NaN()); }

inline void append(Floats& all, const Floats& more) { all.insert(all.end(), more.begin(), more.end()); }

// Floats of a head in turned tiles, and rows [n_heads, n_rows, head_dim] in that layout, poisoned behind the last row.
inline int64_t turned_stride(int n_rows, int head_dim) { return int64_t{(n_rows + kKvTile - 1) / kKvTile} * kKvTile * head_dim; }
inline Floats turned(const Floats& rows, int n_heads, int n_rows, int head_dim) {
  Floats tiles = poisoned(n_heads * turned_stride(n_rows, head_dim));
  for (int g = 0; g < n_heads; ++g) {
    for (int i = 0; i < n_rows; ++i) {
      for (int c = 0; c < head_dim; ++c) {
        tiles[g * turned_stride(n_rows, head_dim) + turned_index(i, c, head_dim)] = rows[(size_t(g) * n_rows + i) * head_dim + c];
      }
    }
  }
  return tiles;
}

inline bool same_bits(const Floats& a, const Floats& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

// Largest difference over the largest expected magnitude; infinite where a NaN is, or where infinities differ.
inline double error_of(const Floats& found, const Floats& expected) {
  if (found.size() != expected.size()) return INFINITY;
  double worst = 0, largest = 1e-30;
  for (size_t i = 0; i < found.size(); ++i) {
    if (found[i] == expected[i]) continue;
    const double difference = std::fabs(double{found[i]} - expected[i]);
    if (!(difference < INFINITY)) return INFINITY;
    worst = std::max(worst, difference);
  }
  for (float x : expected) {
    if (std::isfinite(x)) largest = std::max(largest, std::fabs(double{x}));
  }
  return worst / largest;
}

// x [n_rows, n_columns] as 8-bit rows, with all that belongs to them.
struct Rounded {
  std::vector<int8_t> q;
  Floats scales;
  std::vector<int32_t> sums;

  Rounded(size_t n_rows, int n_columns, int group_size)
      : q(n_rows * n_columns, -128), scales(poisoned(n_rows * n_columns / group_size)), sums(scales.size(), INT32_MIN) {}
  Rows8 rows8(int group_size, const int32_t* column_order = nullptr) { return {group_size, column_order, q.data(), scales.data(), sums.data()}; }
  bool operator==(const Rounded& other) const { return q == other.q && same_bits(scales, other.scales) && sums == other.sums; }
};

inline Rounded rounded(const Ops& ops, Stream& stream, const Floats& x, int n_columns, int group_size, const int32_t* order = nullptr) {
  const int n_rows = static_cast<int>(x.size()) / n_columns;
  Rounded rows(n_rows, n_columns, group_size);
  ops.quantize_rows({x.data(), n_rows, n_columns, group_size, order, rows.q.data(), rows.scales.data(), rows.sums.data()}, stream);
  return rows;
}

// silu(gate) * up, of numbers that are products of a column of weights by 1.
inline Floats swiglu(const Ops& ops, Stream& stream, const Floats& gate, const Floats& up) {
  const int n = static_cast<int>(gate.size());
  const Matrix weights[] = {pack_dense(MatrixForm::f32, gate.data(), n, 1), pack_dense(MatrixForm::f32, up.data(), n, 1)};
  const float one = 1;
  Floats out[] = {poisoned(n), poisoned(n)};
  MatmulArgs args[2] = {};
  for (int i = 0; i < 2; ++i) {
    args[i].weight = &weights[i];
    args[i].x = &one;
    args[i].out = out[i].data();
    args[i].out_stride = n;
    args[i].n_tokens = 1;
  }
  ops.swiglu_matmul({&args[0], &args[1], {}}, stream);
  return out[0];
}

#if SALA_HAS_vnni_model
namespace vnni_model {
extern const Ops table;
}
#endif

// backends(), and the kernels for VNNI with its instruction modelled (CMakeLists.txt).
inline const std::vector<const Ops*>& tables_under_test() {
  static const std::vector<const Ops*> tables = [] {
    std::vector<const Ops*> all = backends();
#if SALA_HAS_vnni_model
    const bool has_avx2 = std::any_of(all.begin(), all.end(), [](const Ops* ops) { return std::string(ops->name) == "avx2"; });
    if (has_avx2) all.push_back(&vnni_model::table);
#endif
    return all;
  }();
  return tables;
}

// run(ops, stream) returns an operator's outputs. Every table must come close to `reference`, whatever the number of
// threads, and all tables of the family "cpu" must give the same bits. Returns those.
template <class Run>
Floats check_tables(Run run, double tolerance) {
  Stream alone(1);
  const Floats expected = run(*backends().front(), alone);
  Floats first;
  for (const Ops* ops : tables_under_test()) {
    if (ops == backends().front()) continue;
    CAPTURE(std::string(ops->name));
    for (int n_threads : {1, 2, 5}) {
      CAPTURE(n_threads);
      Stream stream(n_threads);
      const Floats found = run(*ops, stream);
      CHECK(error_of(found, expected) <= tolerance);
      if (first.empty()) first = found;
      CHECK(same_bits(found, first));
    }
  }
  return first;
}

}  // namespace sala
