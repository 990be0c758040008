// A window's mean is the sum of its rows in ascending order, divided: the same bits whether it is computed alone or
// not.
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/simd.h"
#include "kernels/error.h"

namespace sala::SALA_ISA {

void compress_keys(const CompressKeysArgs& args, Stream& stream) {
  const int d = args.head_dim;
  if (args.n_windows == 0) return;
  CHECK(args.first_window >= 0 && (args.first_window + args.n_windows - 1) * int64_t{args.stride} < args.n_rows);
  stream.parallel_for(args.n_kv_heads * args.n_windows, 8, [&](int first_task, int last_task) {
    for (int task = first_task; task < last_task; ++task) {
      const int g = task / args.n_windows, j = args.first_window + task % args.n_windows;
      const int begin = args.stride * j;
      const int end = begin + args.kernel < args.n_rows ? begin + args.kernel : args.n_rows;
      const float* rows = args.k + g * args.head_stride;
      float* out = args.out + g * args.out_stride + int64_t{j} * d;
      const F32x8 count = F32x8::set1(static_cast<float>(end - begin));
      for (int c = 0; c < d; c += kLanes) {
        F32x8 sums = F32x8::zero();
        for (int i = begin; i < end; ++i) sums = sums + load_part(rows + int64_t{i} * d + c, d - c);
        store_part(sums / count, out + c, d - c);
      }
    }
  });
}

}  // namespace sala::SALA_ISA
