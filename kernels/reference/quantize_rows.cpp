#include <algorithm>
#include <cmath>

#include "kernels/reference/reference.h"

namespace sala::reference {

void quantize_rows(const QuantizeRowsArgs& args, Stream&) {
  CHECK(args.group_size > 0 && args.n_cols % args.group_size == 0);
  const int n_groups = args.n_cols / args.group_size;
  for (int64_t rg = 0; rg < static_cast<int64_t>(args.n_rows) * n_groups; ++rg) {
    const int64_t first = rg * args.group_size;  // of this group in q
    const float* row = args.x + rg / n_groups * args.n_cols;
    const auto value = [&](int i) {
      const int k = static_cast<int>(rg % n_groups) * args.group_size + i;
      return row[args.column_order ? args.column_order[k] : k];
    };
    float max = 0;
    for (int i = 0; i < args.group_size; ++i) max = std::max(max, std::fabs(value(i)));
    const float scale = max / 127;
    int32_t sum = 0;
    for (int i = 0; i < args.group_size; ++i) {
      // Where max is subnormal, scale may round to zero, or so far down that x / scale passes 127.
      const float ratio = scale > 0 ? std::clamp(value(i) / scale, -127.0f, 127.0f) : 0.0f;
      args.q[first + i] = static_cast<int8_t>(std::nearbyint(ratio));
      sum += args.q[first + i];
    }
    args.scales[rg] = scale;
    if (args.sums) args.sums[rg] = sum;
  }
}

void round_rows(const float* x, int n_rows, int n_cols, const Rows8& rows8, Stream& stream) {
  if (rows8.group_size == 0) return;
  quantize_rows({x, n_rows, n_cols, rows8.group_size, rows8.column_order, rows8.q, rows8.scales, rows8.sums}, stream);
}

}  // namespace sala::reference
