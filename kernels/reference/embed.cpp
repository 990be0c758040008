#include "kernels/error.h"
#include "kernels/reference/reference.h"

namespace sala::reference {

namespace {

// Element (row, column) of a matrix in panels; the layout is described in kernels/matrix.h.
float value_at(const Matrix& m, int row, int column) {
  const size_t panel = row / kPanelRows, r = row % kPanelRows;
  const size_t padded_columns = (m.in_features + 7) / 8 * 8;
  const size_t by_column = (panel * padded_columns + column) * kPanelRows + r;
  switch (m.form) {
    case MatrixForm::f32: return reinterpret_cast<const float*>(m.values.data())[by_column];
    case MatrixForm::f16: return f16_to_f32(reinterpret_cast<const uint16_t*>(m.values.data())[by_column]);
    case MatrixForm::bf16: return bf16_to_f32(reinterpret_cast<const uint16_t*>(m.values.data())[by_column]);
    case MatrixForm::int8: {
      const size_t at = panel * padded_columns * kPanelRows + column / 4 * 64 + r * 4 + column % 4;
      return m.scales[row] * static_cast<float>(reinterpret_cast<const int8_t*>(m.values.data())[at]);
    }
    case MatrixForm::int4: break;
  }
  fail(ErrorCode::unsupported, "embed: expected a matrix of f32, f16, bf16 or int8, found int4");
}

}  // namespace

void embed(const EmbedArgs& args, Stream&) {
  const int hidden_size = args.table->in_features;
  for (int t = 0; t < args.n_tokens; ++t) {
    CHECK(args.ids[t] >= 0 && args.ids[t] < args.table->out_features);
    for (int c = 0; c < hidden_size; ++c) {
      args.out[int64_t{t} * hidden_size + c] = args.scale * value_at(*args.table, args.ids[t], c);
    }
  }
}

}  // namespace sala::reference
