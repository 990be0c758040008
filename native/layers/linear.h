// Rows on their way into linear layers: quantised to 8 bit once for all the layers that read them, where weights and mode allow it.
#pragma once

#include <initializer_list>
#include <vector>

#include "native/model.h"

namespace sala {

class LinearInput {
 public:
  // x [n_rows, n_cols] must outlive this. The 8-bit rows are taken from `memory`.
  LinearInput(const Model& model, Workspace::Frame& memory, const float* x, int n_rows, int n_cols)
      : model_(model), memory_(memory), x_(x), n_rows_(n_rows), n_cols_(n_cols) {}

  // out [n_rows, out_stride] = x · Wᵀ + bias.
  void apply(const Matrix& weight, const float* bias, float* out, int64_t out_stride) {
    model_.ops.matmul(product(weight, bias, out, out_stride), model_.stream);
  }
  // out [n_rows, out_features of the layer].
  struct Product {
    const Linear& linear;
    float* out;
  };
  // Several layers in one go, between two waits of the threads.
  void apply(std::initializer_list<Product> products);

 private:
  struct Quantized {
    int group_size;
    const int32_t* column_order;
    int8_t* q;
    float* scales;
    int32_t* sums;
  };
  MatmulArgs product(const Matrix& weight, const float* bias, float* out, int64_t out_stride);
  const Quantized& quantized(int group_size, const int32_t* column_order);

  const Model& model_;
  Workspace::Frame& memory_;
  const float* x_;
  int n_rows_, n_cols_;
  std::vector<Quantized> quantized_;
};

}  // namespace sala
