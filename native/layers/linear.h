// Rows on their way into linear layers: quantised to 8 bit once for all the layers that read them, where weights and mode allow it,
// and where possible in the pass that makes them.
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

  // Rows that are still to be made, for `readers` alone: whoever makes them writes x() and rows8().
  LinearInput(const Model& model, Workspace::Frame& memory, int n_rows, int n_cols, std::initializer_list<const Linear*> readers);

  // Memory for the form that a reader wants of x, for whoever changes x last: it must be written. group_size 0: it wants fp32.
  Rows8 rows8_for(const Linear& reader);

  // Where the fp32 rows go; null: no reader wants them.
  float* x() { return made_; }
  // The form that the readers want, or the first of several; group_size 0: they want fp32 alone.
  Rows8 rows8() const { return quantized_.empty() ? Rows8{} : quantized_.front(); }

  // out [n_rows, out_stride] = x · Wᵀ + bias.
  void apply(const Matrix& weight, const float* bias, float* out, int64_t out_stride) {
    model_.ops.matmul(product(weight, bias, out, out_stride), model_.stream);
  }
  // out [n_rows, out_features of the layer]; with add_scale, out + add_scale · the product.
  struct Product {
    const Linear& linear;
    float* out;
    float add_scale = 0;
  };
  // Several layers in one go, between two waits of the threads.
  void apply(std::initializer_list<Product> products);
  // gate.out = silu(gate's product) * up's, and that as 8-bit rows (SwigluMatmulArgs); up.out is scratch.
  void apply_swiglu(const Product& gate, const Product& up, Rows8 rows8);

 private:
  MatmulArgs product(const Matrix& weight, const float* bias, float* out, int64_t out_stride);
  MatmulArgs product(const Product& product);
  const Rows8& quantized(int group_size, const int32_t* column_order);

  const Model& model_;
  Workspace::Frame& memory_;
  const float* x_ = nullptr;
  float* made_ = nullptr;
  int n_rows_, n_cols_;
  std::vector<Rows8> quantized_;
};

}  // namespace sala
