#include "kernels/cpu/cpu.h"
#include "kernels/cpu/rows.h"

namespace sala::SALA_ISA {

namespace {

constexpr int kRowsPerPiece = 4;

}  // namespace

void quantize_rows(const QuantizeRowsArgs& args, Stream& stream) {
  CHECK(args.group_size > 0 && args.n_cols % args.group_size == 0);
  const Rows8 rows8{args.group_size, args.column_order, args.q, args.scales, args.sums};
  stream.parallel_for(args.n_rows, kRowsPerPiece, [&](int begin, int end) {
    float* ordered = args.column_order ? static_cast<float*>(Stream::scratch(sizeof(float) * args.n_cols)) : nullptr;
    for (int64_t r = begin; r < end; ++r) quantize_row(args.x + r * args.n_cols, r, args.n_cols, rows8, ordered);
  });
}

}  // namespace sala::SALA_ISA
