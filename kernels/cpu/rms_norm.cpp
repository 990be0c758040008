#include "kernels/cpu/cpu.h"
#include "kernels/cpu/rows.h"

namespace sala::SALA_ISA {

void rms_norm(const RmsNormArgs& args, Stream& stream) {
  const int n = args.hidden_size;
  const int grain = 1 + 4096 / n;
  CHECK(args.out != nullptr || args.rows8.group_size > 0 || args.n_tokens == 0);
  CHECK(args.rows8.group_size == 0 || n % args.rows8.group_size == 0);
  stream.parallel_for(args.n_tokens, grain, [&](int first_token, int last_token) {
    float* scratch = args.rows8.group_size ? static_cast<float*>(Stream::scratch(2 * sizeof(float) * n)) : nullptr;
    for (int64_t t = first_token; t < last_token; ++t) {
      float* out = args.out ? args.out + t * n : scratch;
      norm_row(args.x + t * n, args.weight, n, args.eps, out);
      if (args.gate) gate_row(out, args.gate + t * n, n);
      if (args.rows8.group_size) quantize_row(out, t, n, args.rows8, scratch + n);
    }
  });
}

}  // namespace sala::SALA_ISA
