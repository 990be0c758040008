// Rows on their way into linear layers: quantised to 8 bit once for all the layers that read them, where weights and mode allow it.
#pragma once

#include <vector>

#include "native/model.h"

namespace sala {

class LinearInput {
 public:
  // x [n_rows, n_cols] must outlive this. The 8-bit rows are taken from `memory`.
  LinearInput(const Model& model, Workspace::Frame& memory, const float* x, int n_rows, int n_cols)
      : model_(model), memory_(memory), x_(x), n_rows_(n_rows), n_cols_(n_cols) {}

  // out [n_rows, out_stride] = x · Wᵀ + bias.
  void apply(const Matrix& weight, const float* bias, float* out, int64_t out_stride);
  void apply(const Linear& linear, float* out) {
    apply(linear.weight, linear.bias.empty() ? nullptr : linear.bias.data(), out, linear.weight.out_features);
  }

 private:
  struct Quantized {
    int group_size;
    const int32_t* column_order;
    int8_t* q;
    float* scales;
    int32_t* sums;
  };
  const Quantized& quantized(int group_size, const int32_t* column_order);

  const Model& model_;
  Workspace::Frame& memory_;
  const float* x_;
  int n_rows_, n_cols_;
  std::vector<Quantized> quantized_;
};

}  // namespace sala
