// Matrix products over packed weights, one value at a time. With 8-bit activations every operation is as the formula in
// kernels/ops.h orders it, so the CPU tables give the same bits; with fp32 activations the sum is kept in double.
#include <cmath>

#include "kernels/reference/reference.h"

namespace sala::reference {

namespace {

// Byte of column k and row r in an int8 panel; in an int4 panel bytes of columns k and k + 4 share a place.
size_t panel_byte(int k, int r) { return static_cast<size_t>(k / 4) * 64 + 4 * r + k % 4; }

// Code of an int4 or int8 matrix at (n, k).
int code_at(const Matrix& w, int n, int k) {
  const size_t columns = (static_cast<size_t>(w.in_features) + 7) / 8 * 8;
  const size_t p = n / kPanelRows;
  const int r = n % kPanelRows;
  if (w.form == MatrixForm::int8) return static_cast<int8_t>(w.values[p * columns * kPanelRows + panel_byte(k, r)]);
  const uint8_t pair = w.values[p * columns * kPanelRows / 2 + panel_byte(k / 8 * 4 + k % 4, r)];
  return k % 8 < 4 ? pair & 15 : pair >> 4;
}

// Index of row n's entry in group g of `scales` and `zeros`.
size_t scale_at(const Matrix& w, int n, int g) {
  const size_t n_groups = w.form == MatrixForm::int4 ? w.n_groups() : 1;
  return (n / kPanelRows * n_groups + g) * kPanelRows + n % kPanelRows;
}

int zero_at(const Matrix& w, int n, int g) { return w.zeros.empty() ? 8 : w.zeros[scale_at(w, n, g)]; }

float value_at(const Matrix& w, int n, int k) {
  const size_t columns = (static_cast<size_t>(w.in_features) + 7) / 8 * 8;
  const size_t dense = (n / kPanelRows * columns + k) * kPanelRows + n % kPanelRows;
  switch (w.form) {
    case MatrixForm::f32: return reinterpret_cast<const float*>(w.values.data())[dense];
    case MatrixForm::f16: return f16_to_f32(reinterpret_cast<const uint16_t*>(w.values.data())[dense]);
    case MatrixForm::bf16: return bf16_to_f32(reinterpret_cast<const uint16_t*>(w.values.data())[dense]);
    case MatrixForm::int8: return w.scales[scale_at(w, n, 0)] * static_cast<float>(code_at(w, n, k));
    case MatrixForm::int4: {
      const int g = k / w.group_size;
      return w.scales[scale_at(w, n, g)] * static_cast<float>(code_at(w, n, k) - zero_at(w, n, g));
    }
  }
  fail(ErrorCode::internal, "matmul: unknown matrix form ", static_cast<int>(w.form));
}

float product_x(const MatmulArgs& args, int t, int n) {
  const Matrix& w = *args.weight;
  const float* x = args.x + static_cast<int64_t>(t) * w.in_features;
  double sum = 0;
  for (int k = 0; k < w.in_features; ++k) {
    sum += static_cast<double>(value_at(w, n, k)) * x[w.column_order.empty() ? k : w.column_order[k]];
  }
  return static_cast<float>(sum);
}

float product_q(const MatmulArgs& args, int t, int n) {
  const Matrix& w = *args.weight;
  const int n_groups = w.in_features / args.q_group_size;
  const int8_t* q = args.q + static_cast<int64_t>(t) * w.in_features;
  float sum = 0;
  for (int g = 0; g < n_groups; ++g) {
    const int64_t tg = static_cast<int64_t>(t) * n_groups + g;
    const bool int4 = w.form == MatrixForm::int4;
    int32_t dot = int4 ? -zero_at(w, n, g) * args.q_sums[tg] : 0;
    for (int k = g * args.q_group_size; k < (g + 1) * args.q_group_size; ++k) dot += code_at(w, n, k) * q[k];
    sum = std::fma(static_cast<float>(dot), w.scales[scale_at(w, n, int4 ? g : 0)] * args.q_scales[tg], sum);
  }
  return sum;
}

}  // namespace

void check_matmul(const MatmulArgs& args) {
  CHECK(args.weight != nullptr);
  const Matrix& w = *args.weight;
  CHECK((args.x != nullptr) != (args.q != nullptr));
  CHECK(args.out != nullptr && args.n_tokens >= 0 && args.out_stride >= w.out_features);
  if (!args.q) return;
  CHECK(args.q_scales != nullptr);
  CHECK(w.form == MatrixForm::int4 || w.form == MatrixForm::int8);
  CHECK(args.q_group_size > 0 && w.in_features % args.q_group_size == 0);
  CHECK(w.form == MatrixForm::int8 || (args.q_group_size == w.group_size && args.q_sums != nullptr));
}

void matmul(const MatmulArgs& args, Stream& stream) {
  if (args.n_tokens > 0) check_matmul(args);
  for (int t = 0; t < args.n_tokens; ++t) {
    for (int n = 0; n < args.weight->out_features; ++n) {
      const float product = args.q ? product_q(args, t, n) : product_x(args, t, n);
      const float sum = args.bias ? product + args.bias[n] : product;
      float& out = args.out[t * args.out_stride + n];
      out = args.add_scale != 0 ? std::fma(args.add_scale, sum, out) : sum;
    }
  }
  if (args.next) matmul(*args.next, stream);
}

void check_swiglu_matmul(const SwigluMatmulArgs& args) {
  CHECK(args.gate != nullptr && args.up != nullptr && !args.gate->next && !args.up->next);
  CHECK(args.gate->weight && args.up->weight && args.gate->weight->out_features == args.up->weight->out_features);
  CHECK(args.gate->n_tokens == args.up->n_tokens && args.gate->out_stride == args.up->out_stride);
  if (args.rows8.group_size == 0) return;
  CHECK(args.rows8.group_size % kPanelRows == 0 && args.gate->weight->out_features % args.rows8.group_size == 0);
  CHECK(args.rows8.column_order == nullptr && args.gate->out_stride == args.gate->weight->out_features);
}

void swiglu_matmul(const SwigluMatmulArgs& args, Stream& stream) {
  check_swiglu_matmul(args);
  matmul(*args.gate, stream);
  matmul(*args.up, stream);
  const int n_columns = args.gate->weight->out_features;
  for (int64_t t = 0; t < args.gate->n_tokens; ++t) {
    float* gate = args.gate->out + t * args.gate->out_stride;
    const float* up = args.up->out + t * args.up->out_stride;
    for (int n = 0; n < n_columns; ++n) gate[n] = static_cast<float>(gate[n] / (1 + std::exp(-double{gate[n]})) * up[n]);
  }
  round_rows(args.gate->out, args.gate->n_tokens, n_columns, args.rows8, stream);
}

}  // namespace sala::reference
