// Rows on their way into linear layers: quantised to 8 bit once for all the layers that read them, where weights and mode allow it.
#pragma once

#include <vector>

#include "native/model.h"

namespace sala {

class LinearInput {
 public:
  // x [n_rows, n_cols] must outlive this.
  LinearInput(const Model& model, const float* x, int n_rows, int n_cols) : model_(model), x_(x), n_rows_(n_rows), n_cols_(n_cols) {}

  // out [n_rows, out_stride] = x · Wᵀ + bias.
  void apply(const Matrix& weight, const float* bias, float* out, int64_t out_stride);
  void apply(const Linear& linear, float* out) {
    apply(linear.weight, linear.bias.empty() ? nullptr : linear.bias.data(), out, linear.weight.out_features);
  }

 private:
  struct Quantized {
    int group_size;
    const int32_t* column_order;
    Aligned<int8_t> q;
    Aligned<float> scales;
    Aligned<int32_t> sums;
  };
  const Quantized& quantized(int group_size, const int32_t* column_order);

  const Model& model_;
  const float* x_;
  int n_rows_, n_cols_;
  std::vector<Quantized> quantized_;
};

}  // namespace sala
