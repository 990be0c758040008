#include "native/layers/linear.h"

namespace sala {

namespace {

// Activations share a scale per group of 128 columns (design section 4, Numerics); smaller where the rows ask for it, 0: none fits.
int int8_group_size(int n_cols) {
  for (int size : {128, 64, 32, 16, 8}) {
    if (n_cols % size == 0) return size;
  }
  return 0;
}

}  // namespace

const LinearInput::Quantized& LinearInput::quantized(int group_size, const int32_t* column_order) {
  for (const Quantized& q : quantized_) {
    if (q.group_size == group_size && q.column_order == column_order) return q;
  }
  const size_t n_groups = size_t(n_rows_) * (n_cols_ / group_size);
  quantized_.push_back({group_size, column_order, memory_.take<int8_t>(size_t(n_rows_) * n_cols_), memory_.take<float>(n_groups),
                        memory_.take<int32_t>(n_groups)});
  const Quantized& q = quantized_.back();
  model_.ops.quantize_rows({.x = x_, .n_rows = n_rows_, .n_cols = n_cols_, .group_size = group_size, .column_order = column_order,
                            .q = q.q, .scales = q.scales, .sums = q.sums},
                           model_.stream);
  return q;
}

MatmulArgs LinearInput::product(const Matrix& weight, const float* bias, float* out, int64_t out_stride) {
  CHECK(weight.in_features == n_cols_);
  MatmulArgs args{};
  args.weight = &weight;
  args.bias = bias;
  args.out = out;
  args.out_stride = out_stride;
  args.n_tokens = n_rows_;
  int group_size = 0;
  if (model_.activations == Activations::int8) {
    if (weight.form == MatrixForm::int4) group_size = weight.group_size;
    if (weight.form == MatrixForm::int8) group_size = int8_group_size(n_cols_);
  }
  if (group_size) {
    const Quantized& q = quantized(group_size, weight.column_order.data());
    args.q = q.q;
    args.q_scales = q.scales;
    args.q_sums = q.sums;
    args.q_group_size = group_size;
  } else {
    args.x = x_;
  }
  return args;
}

void LinearInput::apply(std::initializer_list<Product> products) {
  std::vector<MatmulArgs> args;
  for (const Product& p : products) {
    const Linear& linear = p.linear;
    args.push_back(product(linear.weight, linear.bias.empty() ? nullptr : linear.bias.data(), p.out, linear.weight.out_features));
  }
  for (size_t i = 1; i < args.size(); ++i) args[i - 1].next = &args[i];
  model_.ops.matmul(args.front(), model_.stream);
}

}  // namespace sala
