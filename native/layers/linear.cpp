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

// Columns of the rows that share a scale; 0: the matrix reads fp32 rows.
int group_size_for(const Matrix& weight, Activations activations) {
  if (activations != Activations::int8) return 0;
  if (weight.form == MatrixForm::int4) return weight.group_size;
  return weight.form == MatrixForm::int8 ? int8_group_size(weight.in_features) : 0;
}

Rows8 take_rows8(Workspace::Frame& memory, int n_rows, int n_cols, int group_size, const int32_t* column_order) {
  const size_t n_groups = size_t(n_rows) * (n_cols / group_size);
  return {group_size, column_order, memory.take<int8_t>(size_t(n_rows) * n_cols), memory.take<float>(n_groups), memory.take<int32_t>(n_groups)};
}

}  // namespace

LinearInput::LinearInput(const Model& model, Workspace::Frame& memory, int n_rows, int n_cols, std::initializer_list<const Linear*> readers)
    : model_(model), memory_(memory), n_rows_(n_rows), n_cols_(n_cols) {
  bool fp32 = false;
  for (const Linear* reader : readers) {
    const int group_size = group_size_for(reader->weight, model.activations);
    const int32_t* column_order = reader->weight.column_order.data();
    if (group_size && quantized_.empty()) quantized_.push_back(take_rows8(memory, n_rows, n_cols, group_size, column_order));
    // A second form is made from the fp32 rows.
    else if (!group_size || quantized_.front().group_size != group_size || quantized_.front().column_order != column_order) fp32 = true;
  }
  if (fp32) x_ = made_ = memory.take<float>(size_t(n_rows) * n_cols);
}

Rows8 LinearInput::rows8_for(const Linear& reader) {
  const int group_size = group_size_for(reader.weight, model_.activations);
  if (!group_size) return {};
  quantized_.push_back(take_rows8(memory_, n_rows_, n_cols_, group_size, reader.weight.column_order.data()));
  return quantized_.back();
}

const Rows8& LinearInput::quantized(int group_size, const int32_t* column_order) {
  for (const Rows8& rows8 : quantized_) {
    if (rows8.group_size == group_size && rows8.column_order == column_order) return rows8;
  }
  CHECK(x_ != nullptr);
  quantized_.push_back(take_rows8(memory_, n_rows_, n_cols_, group_size, column_order));
  const Rows8& rows8 = quantized_.back();
  model_.ops.quantize_rows({.x = x_, .n_rows = n_rows_, .n_cols = n_cols_, .group_size = group_size, .column_order = column_order,
                            .q = rows8.q, .scales = rows8.scales, .sums = rows8.sums},
                           model_.stream);
  return rows8;
}

MatmulArgs LinearInput::product(const Matrix& weight, const float* bias, float* out, int64_t out_stride) {
  CHECK(weight.in_features == n_cols_);
  MatmulArgs args{};
  args.weight = &weight;
  args.bias = bias;
  args.out = out;
  args.out_stride = out_stride;
  args.n_tokens = n_rows_;
  const int group_size = group_size_for(weight, model_.activations);
  if (group_size) {
    const Rows8& rows8 = quantized(group_size, weight.column_order.data());
    args.q = rows8.q;
    args.q_scales = rows8.scales;
    args.q_sums = rows8.sums;
    args.q_group_size = group_size;
  } else {
    args.x = x_;
  }
  return args;
}

MatmulArgs LinearInput::product(const Product& p) {
  const Linear& linear = p.linear;
  MatmulArgs args = product(linear.weight, linear.bias.empty() ? nullptr : linear.bias.data(), p.out, linear.weight.out_features);
  args.add_scale = p.add_scale;
  return args;
}

void LinearInput::apply(std::initializer_list<Product> products) {
  std::vector<MatmulArgs> args;
  for (const Product& p : products) args.push_back(product(p));
  for (size_t i = 1; i < args.size(); ++i) args[i - 1].next = &args[i];
  model_.ops.matmul(args.front(), model_.stream);
}

void LinearInput::apply_swiglu(const Product& gate, const Product& up, Rows8 rows8) {
  const MatmulArgs gate_args = product(gate), up_args = product(up);
  model_.ops.swiglu_matmul({&gate_args, &up_args, rows8}, model_.stream);
}

}  // namespace sala
