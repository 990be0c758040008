// A row of a matrix in panels is strided; this gathers it. No arithmetic but the two scales, so all tables and
// `reference` give the same bits.
#include "kernels/cpu/cpu.h"
#include "kernels/error.h"

namespace sala::SALA_ISA {

namespace {

template <class T, class ToFloat>
void dense_row(const T* first, int n, float scale, float* out, ToFloat to_float) {
  for (int c = 0; c < n; ++c) out[c] = scale * to_float(first[int64_t{c} * kPanelRows]);
}

}  // namespace

void embed(const EmbedArgs& args, Stream& stream) {
  const Matrix& table = *args.table;
  const int hidden_size = table.in_features;
  const int64_t panel_size = int64_t{(hidden_size + 7) / 8 * 8} * kPanelRows;
  CHECK(table.form != MatrixForm::int4 && table.column_order.empty());

  stream.parallel_for(args.n_tokens, 4, [&](int first_token, int last_token) {
    for (int t = first_token; t < last_token; ++t) {
      const int id = args.ids[t];
      CHECK(id >= 0 && id < table.out_features);
      const int64_t panel = id / kPanelRows * panel_size;
      const int row = id % kPanelRows;
      const uint8_t* values = table.values.data();
      float* out = args.out + int64_t{t} * hidden_size;
      if (table.form == MatrixForm::int8) {
        const int8_t* codes = reinterpret_cast<const int8_t*>(values) + panel + row * 4;
        for (int c = 0; c < hidden_size; ++c) {
          out[c] = args.scale * (table.scales[id] * static_cast<float>(codes[int64_t{c / 4} * 64 + c % 4]));
        }
      } else if (table.form == MatrixForm::f32) {
        dense_row(reinterpret_cast<const float*>(values) + panel + row, hidden_size, args.scale, out,
                  [](float x) { return x; });
      } else {
        const auto to_float = table.form == MatrixForm::f16 ? f16_to_f32 : bf16_to_f32;
        dense_row(reinterpret_cast<const uint16_t*>(values) + panel + row, hidden_size, args.scale, out, to_float);
      }
    }
  });
}

}  // namespace sala::SALA_ISA
