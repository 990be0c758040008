// Keys in the layout that products want: lanes are keys. Not here: stored segments, whose keys are 8-bit rows (segment.h).
#pragma once

#include "kernels/aligned.h"
#include "kernels/ops.h"

namespace sala {

// Keys of one kind, of all K/V heads, in turned tiles (kernels/ops.h), as attention and selection read them: component c of row i
// of head g at g * head_stride() + turned_index(i, c, head_dim). Turned once, when they come, instead of for every token that
// attends to them. What lies behind the last row is undefined.
class TurnedKeys {
 public:
  TurnedKeys() = default;
  // Room for `capacity` rows a head.
  TurnedKeys(int n_heads, int head_dim, int capacity);

  bool empty() const { return data_.empty(); }
  size_t size() const { return data_.size(); }
  const float* data() const { return data_.data(); }
  int64_t head_stride() const { return head_stride_; }

  // Rows first … first + n − 1: row i of head g from rows + i * row_stride + g * head_row_stride.
  void put(const float* rows, int64_t row_stride, int64_t head_row_stride, int first, int n);
  // The same rows of one head, to out [n, head_dim].
  void get(int head, int first, int n, float* out) const;
  // The first n rows of each head from one that has as many.
  void assign(const TurnedKeys& from, int n);

  static size_t size_of(int n_heads, int head_dim, int capacity);

 private:
  int n_heads_ = 0, head_dim_ = 0;
  int64_t head_stride_ = 0;
  Aligned<float> data_;
};

}  // namespace sala
