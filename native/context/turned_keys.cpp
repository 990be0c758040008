#include "native/context/turned_keys.h"

#include <algorithm>

namespace sala {

namespace {

int n_tiles_of(int n_rows) { return (n_rows + kKvTile - 1) / kKvTile; }

}  // namespace

size_t TurnedKeys::size_of(int n_heads, int head_dim, int capacity) {
  return size_t(n_heads) * n_tiles_of(capacity) * kKvTile * head_dim;
}

TurnedKeys::TurnedKeys(int n_heads, int head_dim, int capacity)
    : n_heads_(n_heads), head_dim_(head_dim), head_stride_(int64_t(n_tiles_of(capacity)) * kKvTile * head_dim),
      data_(size_of(n_heads, head_dim, capacity)) {}

void TurnedKeys::put(const float* rows, int64_t row_stride, int64_t head_row_stride, int first, int n) {
  CHECK(first >= 0 && int64_t(n_tiles_of(first + n)) * kKvTile * head_dim_ <= head_stride_);
  for (int g = 0; g < n_heads_; ++g) {
    for (int i = 0; i < n; ++i) {
      const float* row = rows + i * row_stride + g * head_row_stride;
      float* column = data_.data() + g * head_stride_ + turned_index(first + i, 0, head_dim_);
      for (int c = 0; c < head_dim_; ++c) column[size_t(c) * kKvTile] = row[c];
    }
  }
}

void TurnedKeys::get(int head, int first, int n, float* out) const {
  for (int i = 0; i < n; ++i) {
    const float* column = data_.data() + head * head_stride_ + turned_index(first + i, 0, head_dim_);
    for (int c = 0; c < head_dim_; ++c) *out++ = column[size_t(c) * kKvTile];
  }
}

void TurnedKeys::assign(const TurnedKeys& from, int n) {
  const size_t n_floats = size_t(n_tiles_of(n)) * kKvTile * head_dim_;
  CHECK(int64_t(n_floats) <= head_stride_ && int64_t(n_floats) <= from.head_stride_);
  for (int g = 0; g < n_heads_; ++g) std::copy_n(from.data() + g * from.head_stride_, n_floats, data_.data() + g * head_stride_);
}

}  // namespace sala
