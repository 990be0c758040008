#include "kernels/cpu/cpu.h"
#include "kernels/cpu/rows.h"

namespace sala::SALA_ISA {

namespace {

// Elements below which, a token's, a second thread costs more than it saves.
constexpr int kFewElements = 6144;

}  // namespace

void sigmoid_gate(const SigmoidGateArgs& args, Stream& stream) {
  const int n = args.n_cols;
  CHECK(args.rows8.group_size == 0 || n % args.rows8.group_size == 0);
  stream.parallel_for(args.n_rows, 1 + kFewElements / n, [&](int first_row, int last_row) {
    float* ordered = args.rows8.column_order ? static_cast<float*>(Stream::scratch(sizeof(float) * n)) : nullptr;
    for (int64_t r = first_row; r < last_row; ++r) {
      gate_row(args.x + r * n, args.gate + r * n, n);
      if (args.rows8.group_size) quantize_row(args.x + r * n, r, n, args.rows8, ordered);
    }
  });
}

}  // namespace sala::SALA_ISA
